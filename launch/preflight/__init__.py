"""Predicts what a job needs on a machine that is not at hand: memory, time, chip-hours."""
