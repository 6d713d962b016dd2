"""Checkpoints in the layout of Hugging Face `transformers`, read and written without it."""
