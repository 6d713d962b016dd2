"""The parts of a decoder layer: attention, the KV cache, rotary positions, MoE and projections."""
