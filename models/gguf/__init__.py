"""Checkpoints in llama.cpp's file format, GGUF: one file with config, tokenizer and weights."""
