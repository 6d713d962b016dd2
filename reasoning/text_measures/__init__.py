"""Numbers read off a text: its language, its repetition, and its self-checks."""
