"""The path sampler: partial completions that a search extends, forks and scores step by step."""
