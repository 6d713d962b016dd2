"""Measures texts: their language, their repetition and their self-checks."""
