"""The client of a model behind an OpenAI-compatible server, and what is built on it."""
