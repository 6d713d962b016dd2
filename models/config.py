"""What a decoder is: sizes and architectural switches, from a name, a HF `config.json`, or by hand."""

import dataclasses
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3 frequency scaling (Llama 3.1 model card; `rope_type: "llama3"` in HF configs)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_length: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One decoder: Llama 3.x, Qwen2/2.5 or Qwen3, by its switches.

    Attributes:
      family: HF architecture that the weights are exchanged as.
      qkv_bias: biases on the query, key and value projections (Qwen2).
      qk_norm: RMSNorm over the head dimension of queries and keys before RoPE (Qwen3).
      max_length: longest sequence, in tokens, that positions are meant for.
      dtype: compute dtype; norms, softmax, logits and log-probs are float32 whatever it is.
      param_dtype: dtype of the stored weights.
      remat: "none", "full" (keep only block inputs) or "dots" (keep matrix products).
      scan_unroll: layers per iteration of the scan; 1 keeps compile time flat, all of them is
        fastest for the tiniest models.
    """

    family: str
    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    max_length: int = 4096
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    scan_unroll: int = 1

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(f"family={self.family!r} is unknown; choose one of {', '.join(FAMILIES)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd; RoPE rotates pairs")
        if self.remat not in ("none", "full", "dots"):
            raise ValueError(f"remat={self.remat!r} is unknown; choose none, full or dots")

    def replace(self, **changes: Any) -> "ModelConfig":
        return dataclasses.replace(self, **changes)

    @property
    def num_params(self) -> int:
        """Number of weights, the tied head counted once."""
        attention = self.embed_dim * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        attention += self.qkv_bias * self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        attention += self.qk_norm * 2 * self.head_dim
        block = attention + 3 * self.embed_dim * self.mlp_dim + 2 * self.embed_dim
        heads = 1 if self.tie_embeddings else 2
        return self.num_layers * block + self.embed_dim + heads * self.vocab_size * self.embed_dim

    def flops_per_token(self, context: float) -> float:
        """Forward FLOPs of one token that attends to `context` tokens (matrix products only)."""
        attention = self.embed_dim * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        block = attention + 3 * self.embed_dim * self.mlp_dim
        products = 2 * (self.num_layers * block + self.vocab_size * self.embed_dim)
        return products + 4 * context * self.num_layers * self.num_heads * self.head_dim
