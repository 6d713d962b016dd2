"""Reads and writes checkpoints in the layout of Hugging Face `transformers`, without needing it."""
