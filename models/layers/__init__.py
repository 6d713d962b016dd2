"""The parts of a decoder layer: attention, KV cache, RoPE, mixture of experts and projections."""
