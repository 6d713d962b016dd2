"""The client of a model behind an OpenAI-compatible server, its generator and its judge."""
