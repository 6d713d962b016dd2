"""Samples and scores for searches, which extend and fork partial completions step by step."""
