"""Qwen2 and Qwen2.5 (arXiv:2412.15115): as Llama, with biases of queries, keys and values."""

from models.hf.families.family import Family, grouped_query_layer, read_head_dim

FAMILY = Family(
    class_name="Qwen2",
    read=read_head_dim,
    write=lambda config: {"use_sliding_window": False},
    layer=grouped_query_layer,
    features=frozenset({"qkv_bias"}),
    # Its biases are fixed; transformers itself does not read the field.
    ignores=frozenset({"attention_bias"}),
)
