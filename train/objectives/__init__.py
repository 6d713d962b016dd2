"""Training objectives: each module has a loss and makes its batches, for the one train step."""
