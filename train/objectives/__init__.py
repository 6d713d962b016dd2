"""Training objectives: a loss and its batches each, for the one train step."""
