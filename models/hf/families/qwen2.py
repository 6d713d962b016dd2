"""Qwen2 and Qwen2.5 (arXiv:2412.15115): like Llama, with biases for queries, keys and values."""

from models.hf.families.family import Family, grouped_query_layer, read_head_dim

FAMILY = Family(
    class_name="Qwen2",
    read=read_head_dim,
    write=lambda config: {"use_sliding_window": False},
    layer=grouped_query_layer,
    features=frozenset({"qkv_bias"}),
    # The family always has biases; transformers does not read this field either.
    ignores=frozenset({"attention_bias"}),
)
