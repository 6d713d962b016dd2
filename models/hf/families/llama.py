"""Llama 3 (arXiv:2407.21783): grouped-query attention and a gated MLP."""

from models.hf.families.family import Family, grouped_query_layer, read_head_dim

FAMILY = Family(
    class_name="Llama",
    read=read_head_dim,
    write=lambda config: {"attention_bias": False, "mlp_bias": False},
    layer=grouped_query_layer,
)
