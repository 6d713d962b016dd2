"""Sampling from a decoder: logits over a KV cache, the draw, and the one compiled sampler."""
