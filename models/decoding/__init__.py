"""Sampling from a decoder: the forward pass over a KV cache, the draw and the compiled sampler."""
