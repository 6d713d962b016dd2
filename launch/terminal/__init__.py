"""Tells on the terminal what a recipe is about to do, how it goes on, and what happened."""
