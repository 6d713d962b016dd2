"""`ModelConfig`: the sizes and architectural switches that define one decoder.

`models.named_configs` lists the published ones; `models.hf.config` reads and writes `config.json`.
"""

import dataclasses
import math
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3", "deepseek_v3")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Settings of Llama 3's frequency scaling, which stretches RoPE to a longer context.

    Source: Llama 3.1 model card; `rope_type: "llama3"` in HF configs. `rope_frequencies` in
    `models.layers.rope` applies it.

    Attributes:
      factor: divides the frequencies of long wavelengths.
      low_freq_factor: pairs that turn fewer times than this over the original context have their
        frequency divided by `factor`.
      high_freq_factor: pairs that turn more often than this keep their frequency; pairs between
        the two bounds get a blend.
      original_max_length: the context before scaling, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_length: int


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """Settings of YaRN, which stretches RoPE to a longer context.

    Source: arXiv:2309.00071; `rope_type: "yarn"` in HF configs. `rope_frequencies` in
    `models.layers.rope` applies it.

    Attributes:
      factor: how many times longer the context has become.
      original_max_length: the context before scaling, in tokens.
      beta_fast, beta_slow: pairs that turn more often than `beta_fast` over the original context
        keep their frequency; pairs that turn fewer times than `beta_slow` have it divided by
        `factor`; pairs between get a blend.
      mscale, mscale_all_dim: weights of the attention's temperature; `rotation_scale` and
        `score_scale` use them.
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
        """The factor that multiplies the rotated part of queries and of keys."""
        if self.mscale and self.mscale_all_dim:
            return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)
        return self._temperature(1.0)

    @property
    def score_scale(self) -> float:
        """The factor that multiplies all attention scores, in addition to 1 / sqrt(head_dim)."""
        return self._temperature(self.mscale_all_dim) ** 2


@dataclasses.dataclass(frozen=True)
class LatentAttention:
    """Sizes of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    Attributes:
      kv_rank: size of the latent that keys and values are projected from; the KV cache holds it.
      q_rank: size of the latent that queries are projected from; with None they are projected
        from the residual stream.
      nope_dim: dimensions of a head's query and key that RoPE does not rotate.
      rope_dim: dimensions of a head's query that RoPE rotates; all heads share one rotated key.
      value_dim: dimensions of a head's value.
    """

    kv_rank: int
    q_rank: int | None
    nope_dim: int
    rope_dim: int
    value_dim: int


@dataclasses.dataclass(frozen=True)
class Experts:
    """Sizes of a mixture of experts (DeepSeek-V3, arXiv:2412.19437, section 2.1.2).

    Attributes:
      num_experts: routed experts of each layer.
      per_token: how many routed experts process each token.
      mlp_dim: hidden units of each expert.
      num_shared: shared experts, which process every token; they are built as one MLP with
        `num_shared * mlp_dim` hidden units.
      groups: number of equal groups that the routed experts are divided into.
      groups_per_token: from how many groups the experts of one token may come.
      normalize: whether the weights of a token's experts are scaled to sum to one.
      scale: factor that multiplies the weighted sum of the routed experts.
      first_layer: index of the first layer with experts; earlier layers have an MLP with
        `ModelConfig.mlp_dim` hidden units.
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

    def __post_init__(self) -> None:
        if self.num_experts % self.groups or self.num_experts < 2 * self.groups:
            raise ValueError(
                f"{self.num_experts} experts do not divide into groups={self.groups} of at least 2"
                " experts; change num_experts or groups"
            )
        if not 1 <= self.groups_per_token <= self.groups:
            raise ValueError(
                f"groups_per_token={self.groups_per_token} is not within 1..{self.groups}; there"
                f" are groups={self.groups}"
            )
        most = self.num_experts // self.groups * self.groups_per_token
        if not 1 <= self.per_token <= most:
            raise ValueError(
                f"per_token={self.per_token} is not within 1..{most}; that is how many experts"
                f" {self.groups_per_token} of {self.groups} groups hold"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one decoder: Llama 3.x, Qwen2/2.5, Qwen3 or DeepSeek-V3.

    Attributes:
      family: HF architecture whose checkpoint format the weights are loaded from and exported to.
      vocab_size: V, rows of the embedding.
      embed_dim: D, size of the residual stream.
      num_layers: L.
      num_heads: N, query heads.
      num_kv_heads: K, key/value heads; divides `num_heads`.
      head_dim: H, dimensions of each head.
      mlp_dim: F, hidden units of the MLP.
      rope_theta: base of the RoPE frequencies.
      rope_scaling: how RoPE is stretched to a longer context, if it is.
      norm_eps: epsilon of every RMSNorm.
      tie_embeddings: whether the LM head is the transposed embedding.
      qkv_bias: whether the query, key and value projections have biases (Qwen2).
      qk_norm: whether queries and keys pass an RMSNorm over the head dimension before RoPE (Qwen3).
      latent: latent attention, or a mapping of its fields, instead of grouped-query attention
        (DeepSeek-V3). `head_dim` is then the dimension of queries and keys, and `num_kv_heads`
        equals `num_heads`.
      experts: a mixture of experts, or a mapping of its fields, instead of the MLP from layer
        `experts.first_layer` on.
      max_length: longest sequence, in tokens, that the positions are meant for.
      dtype: dtype of the computation; norms, softmax, logits and log-probs are float32 in any case.
      param_dtype: dtype of the stored weights.
      remat: which activations the backward pass finds stored: "none" stores all of them, "full"
        only the inputs of blocks, "dots" only matrix products.
      int8_kernels: whether the layers' projections hold int8 kernels, with a factor for each
        output; for sampling alone, see `models.decoding.weights`.
      int8_cache: whether the KV cache of the compiled sampler holds int8 keys and values, with a
        factor for each head of each token; see `models.layers.kv_cache`.
      scan_unroll: layers per iteration of the scan over layers. 1 keeps compile time independent
        of depth; `num_layers` runs fastest for the tiniest models.

    Raises:
      ValueError: a field has an unknown value, or two fields do not fit together.
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
    int8_kernels: bool = False
    int8_cache: bool = False

    def __post_init__(self) -> None:
        for name, part in (("latent", LatentAttention), ("experts", Experts)):
            fields = getattr(self, name)
            if not isinstance(fields, part | None):  # It is a mapping from a config file.
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
            raise ValueError(
                f"head_dim={self.rope_dim} is odd; RoPE rotates pairs of dimensions, so make it"
                " even (with latent attention, latent.rope_dim)"
            )
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
                f"{self.num_layers} layers; choose experts.first_layer in 0..{self.num_layers - 1}"
            )

    def replace(self, **changes: Any) -> "ModelConfig":
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def rope_dim(self) -> int:
        """The number of dimensions of each head that RoPE rotates."""
        return self.latent.rope_dim if self.latent else self.head_dim

    @property
    def cached(self) -> tuple[int, int, int]:
        """The shape of one token in the KV cache: (heads, key dimension, value dimension).

        With latent attention the cache has one head, which holds the latent.
        """
        if self.latent is None:
            return self.num_kv_heads, self.head_dim, self.head_dim
        return 1, self.latent.kv_rank + self.latent.rope_dim, self.latent.kv_rank

    @property
    def stacks(self) -> dict[str, range]:
        """The layers of each stack by its name. A stack's layers are equal in shape and scanned."""
        first = self.experts.first_layer if self.experts else 0
        dense = {"dense_layers": range(first)} if first else {}
        return dense | {"layers": range(first, self.num_layers)}

    @property
    def num_params(self) -> int:
        """The number of weights; a tied head counts once, as the embedding."""
        norms = 2 * self.embed_dim + self.qk_norm * 2 * self.head_dim
        if self.latent is not None:
            norms += (self.latent.q_rank or 0) + self.latent.kv_rank
        biases = self.qkv_bias * self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        total = self.num_layers * (self._attention_params + norms + biases)
        total += self._mlp_params(all_experts=True)
        if self.experts is not None:  # The router's biases.
            total += len(self.stacks["layers"]) * self.experts.num_experts
        heads = 1 if self.tie_embeddings else 2
        return total + self.embed_dim + heads * self.vocab_size * self.embed_dim

    def flops_per_token(self, context: Any) -> Any:
        """Returns the forward FLOPs of one token that attends to `context` tokens.

        Only matrix products count.
        """
        weights = self.num_layers * self._attention_params + self._mlp_params(all_experts=False)
        products = 2 * (weights + self.vocab_size * self.embed_dim)
        value_dim = self.latent.value_dim if self.latent else self.head_dim
        pair = 2 * self.num_heads * (self.head_dim + value_dim)
        return products + context * self.num_layers * pair

    @property
    def _attention_params(self) -> int:
        """The number of weights in the matrices of one layer's attention."""
        D, N, H = self.embed_dim, self.num_heads, self.head_dim
        if (latent := self.latent) is None:
            return D * H * (2 * N + 2 * self.num_kv_heads)
        queries = D * N * H if latent.q_rank is None else latent.q_rank * (D + N * H)
        keys = D * (latent.kv_rank + latent.rope_dim)
        keys += latent.kv_rank * N * (latent.nope_dim + latent.value_dim)
        return queries + keys + N * latent.value_dim * D

    def _mlp_params(self, all_experts: bool) -> int:
        """Counts the weights in the MLP matrices of all layers.

        Args:
          all_experts: whether to count every routed expert, or only those that process one token.
        """
        D, experts = self.embed_dim, self.experts
        if experts is None:
            return self.num_layers * 3 * D * self.mlp_dim
        met = experts.num_shared + (experts.num_experts if all_experts else experts.per_token)
        with_experts = 3 * D * experts.mlp_dim * met + D * experts.num_experts
        dense = experts.first_layer * 3 * D * self.mlp_dim
        return dense + (self.num_layers - experts.first_layer) * with_experts
