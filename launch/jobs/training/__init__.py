"""Trainings as a config says: a plan, which finds mistakes before any work, then the training."""
