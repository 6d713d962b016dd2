"""What a decoder is: sizes and architectural switches, from a name, a HF `config.json`, or by hand."""

import dataclasses
import math
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3", "deepseek_v3")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3 frequency scaling (Llama 3.1 model card; `rope_type: "llama3"` in HF configs)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_length: int


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN frequency scaling (arXiv:2309.00071; `rope_type: "yarn"` in HF configs).

    Attributes:
      factor: how many times longer the context has become.
      original_max_length: the context before, in tokens.
      beta_fast, beta_slow: pairs that turn more often than `beta_fast` over the original context
        keep their frequency, those below `beta_slow` have it divided by `factor`.
      mscale, mscale_all_dim: temperature of the attention; see `rotation_scale`, `score_scale`.
    """

    factor: float
    original_max_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0

    def _temperature(self, weight: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * weight * math.log(self.factor) + 1.0

    @property
    def rotation_scale(self) -> float:
        """Multiplies the rotated part of queries and of keys."""
        if self.mscale and self.mscale_all_dim:
            return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)
        return self._temperature(1.0)

    @property
    def score_scale(self) -> float:
        """Multiplies all scores, beside 1 / sqrt(head_dim)."""
        return self._temperature(self.mscale_all_dim) ** 2


@dataclasses.dataclass(frozen=True)
class LatentAttention:
    """Sizes of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    Attributes:
      kv_rank: of the latent that keys and values are made of; the cache holds it.
      q_rank: of the latent that queries are made of; None makes them of the residual stream.
      nope_dim: of a head's query and key, what does not rotate.
      rope_dim: of a head's query, what rotates; the key's is the same for all heads.
      value_dim: of a head's value.
    """

    kv_rank: int
    q_rank: int | None
    nope_dim: int
    rope_dim: int
    value_dim: int


@dataclasses.dataclass(frozen=True)
class Experts:
    """Mixture of experts (DeepSeek-V3, arXiv:2412.19437, section 2.1.2).

    Attributes:
      num_experts: routed experts of a layer.
      per_token: of which a token is sent to so many.
      mlp_dim: hidden dimension of each.
      num_shared: experts that take every token, in effect one of `num_shared * mlp_dim`.
      groups: equal parts that the experts are in.
      groups_per_token: the parts that a token's experts may be in.
      normalize: whether the weights of a token's experts are made to sum to one.
      scale: of the routed experts' sum.
      first_layer: the first layer with experts; those before have an MLP of `ModelConfig.mlp_dim`.
    """

    num_experts: int
    per_token: int
    mlp_dim: int
    num_shared: int = 1
    groups: int = 1
    groups_per_token: int = 1
    normalize: bool = True
    scale: float = 1.0
    first_layer: int = 0

    def __post_init__(self):
        if self.num_experts % self.groups or self.num_experts < 2 * self.groups:
            raise ValueError(
                f"{self.num_experts} experts do not divide into groups={self.groups} of at least 2"
            )
        if not 1 <= self.groups_per_token <= self.groups:
            raise ValueError(
                f"groups_per_token={self.groups_per_token} is not within 1..{self.groups}, the"
                " number of groups"
            )
        most = self.num_experts // self.groups * self.groups_per_token
        if not 1 <= self.per_token <= most:
            raise ValueError(
                f"per_token={self.per_token} is not within 1..{most}, the experts in"
                f" {self.groups_per_token} of {self.groups} groups"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One decoder: Llama 3.x, Qwen2/2.5, Qwen3 or DeepSeek-V3, by its switches.

    Attributes:
      family: HF architecture that the weights are exchanged as.
      qkv_bias: biases on the query, key and value projections (Qwen2).
      qk_norm: RMSNorm over the head dimension of queries and keys before RoPE (Qwen3).
      latent: latent attention, or its fields, in the place of grouped queries (DeepSeek-V3).
        `head_dim` is then that of queries and keys, and there are as many key heads as query heads.
      experts: a mixture of experts, or its fields, in the place of the MLP in all but the first
        layers.
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
    rope_scaling: RopeScaling | YarnScaling | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    latent: LatentAttention | None = None
    experts: Experts | None = None
    max_length: int = 4096
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    scan_unroll: int = 1

    def __post_init__(self):
        for name, part in (("latent", LatentAttention), ("experts", Experts)):
            fields = getattr(self, name)
            if not isinstance(fields, part | None):  # A mapping, from a config file.
                object.__setattr__(self, name, part(**fields))
        if self.family not in FAMILIES:
            raise ValueError(
                f"family={self.family!r} is unknown; choose one of {', '.join(FAMILIES)}"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.rope_dim % 2:
            raise ValueError(f"head_dim={self.rope_dim} is odd; RoPE rotates pairs")
        if self.remat not in ("none", "full", "dots"):
            raise ValueError(f"remat={self.remat!r} is unknown; choose none, full or dots")
        if self.latent is not None:
            head_dim = self.latent.nope_dim + self.latent.rope_dim
            if (self.head_dim, self.num_kv_heads) != (head_dim, self.num_heads):
                raise ValueError(
                    f"latent attention with head_dim={self.head_dim} and num_kv_heads="
                    f"{self.num_kv_heads}: they must be nope_dim + rope_dim = {head_dim} and "
                    f"num_heads={self.num_heads}"
                )
        if self.experts is not None and not 0 <= self.experts.first_layer < self.num_layers:
            raise ValueError(
                f"experts from layer {self.experts.first_layer} on, but there are "
                f"{self.num_layers} layers"
            )

    def replace(self, **changes: Any) -> "ModelConfig":
        return dataclasses.replace(self, **changes)

    @property
    def rope_dim(self) -> int:
        """Dimensions of a head that rotate."""
        return self.latent.rope_dim if self.latent else self.head_dim

    @property
    def cached(self) -> tuple[int, int, int]:
        """Heads, key and value dimension of the KV cache. Of latent attention it holds latents."""
        if self.latent is None:
            return self.num_kv_heads, self.head_dim, self.head_dim
        return 1, self.latent.kv_rank + self.latent.rope_dim, self.latent.kv_rank

    @property
    def stacks(self) -> dict[str, range]:
        """Name of each run of alike layers, which are stacked and scanned, and its layers."""
        first = self.experts.first_layer if self.experts else 0
        dense = {"dense_layers": range(first)} if first else {}
        return dense | {"layers": range(first, self.num_layers)}

    @property
    def num_params(self) -> int:
        """Number of weights, the tied head counted once."""
        norms = 2 * self.embed_dim + self.qk_norm * 2 * self.head_dim
        if self.latent is not None:
            norms += (self.latent.q_rank or 0) + self.latent.kv_rank
        biases = self.qkv_bias * self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        total = self.num_layers * (self._attention_params + norms + biases)
        total += self._mlp_params(all_experts=True)
        if self.experts is not None:  # What corrects the router's choice.
            total += len(self.stacks["layers"]) * self.experts.num_experts
        heads = 1 if self.tie_embeddings else 2
        return total + self.embed_dim + heads * self.vocab_size * self.embed_dim

    def flops_per_token(self, context: Any) -> Any:
        """Forward FLOPs of one token that attends to `context` tokens (matrix products only)."""
        weights = self.num_layers * self._attention_params + self._mlp_params(all_experts=False)
        products = 2 * (weights + self.vocab_size * self.embed_dim)
        value_dim = self.latent.value_dim if self.latent else self.head_dim
        pair = 2 * self.num_heads * (self.head_dim + value_dim)
        return products + context * self.num_layers * pair

    @property
    def _attention_params(self) -> int:
        """Weights of the matrices of one layer's attention."""
        D, N, H = self.embed_dim, self.num_heads, self.head_dim
        if (latent := self.latent) is None:
            return D * H * (2 * N + 2 * self.num_kv_heads)
        queries = D * N * H if latent.q_rank is None else latent.q_rank * (D + N * H)
        keys = D * (latent.kv_rank + latent.rope_dim)
        keys += latent.kv_rank * N * (latent.nope_dim + latent.value_dim)
        return queries + keys + N * latent.value_dim * D

    def _mlp_params(self, all_experts: bool) -> int:
        """Weights of the matrices of all layers' MLPs: all of them, or those a token meets."""
        D, experts = self.embed_dim, self.experts
        if experts is None:
            return self.num_layers * 3 * D * self.mlp_dim
        met = experts.num_shared + (experts.num_experts if all_experts else experts.per_token)
        with_experts = 3 * D * experts.mlp_dim * met + D * experts.num_experts
        dense = experts.first_layer * 3 * D * self.mlp_dim
        return dense + (self.num_layers - experts.first_layer) * with_experts
