"""Generators, whole responses at once or step by step."""
