"""Qwen3 (arXiv:2505.09388): like Llama, with normalized queries and keys."""

import functools

from models.hf.families.family import Family, grouped_query_layer, read_head_dim

FAMILY = Family(
    class_name="Qwen3",
    read=functools.partial(read_head_dim, default=128),
    write=lambda config: {"use_sliding_window": False},
    layer=grouped_query_layer,
    features=frozenset({"qk_norm"}),
)
