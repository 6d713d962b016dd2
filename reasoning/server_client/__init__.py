"""The client of a model behind an OpenAI-compatible server, with the generator and the judge that
use it.
"""
