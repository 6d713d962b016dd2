"""The schema of a model from scratch."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from launch.schema.fields import Section, Setting, given

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Section):
    """Sizes and switches of a decoder; None takes the default of `models/config.py`."""

    family: Annotated[str, Setting("HF architecture", choices="models.config:FAMILIES")]
    vocab_size: Annotated[int, Setting("size of the vocabulary", unit="tokens", least=2)]
    embed_dim: Annotated[int, Setting("width of the residual stream", least=1)]
    num_layers: Annotated[int, Setting("transformer blocks", least=1)]
    num_heads: Annotated[int, Setting("query heads", least=1)]
    num_kv_heads: Annotated[int, Setting("key and value heads", least=1)]
    head_dim: Annotated[int, Setting("head dimension", least=2)]
    mlp_dim: Annotated[int, Setting("hidden dimension of the MLP", least=1)]
    rope_theta: Annotated[float | None, Setting("base of the rotary positions", above=0)] = None
    norm_eps: Annotated[float | None, Setting("epsilon of RMSNorm", above=0)] = None
    tie_embeddings: Annotated[
        bool | None, Setting("share one matrix between embedding and LM head")
    ] = None
    qkv_bias: Annotated[bool | None, Setting("add biases to queries, keys and values")] = None
    qk_norm: Annotated[bool | None, Setting("normalise queries and keys by RMSNorm")] = None
    latent: Annotated[
        Mapping[str, Any] | None, Setting("sizes of latent attention; see models/config.py")
    ] = None
    experts: Annotated[
        Mapping[str, Any] | None, Setting("mixture of experts; see models/config.py")
    ] = None
    max_length: Annotated[int | None, Setting("context length", unit="tokens", least=1)] = None
    dtype: Annotated[str | None, Setting("dtype of the computation", choices=DTYPES)] = None
    param_dtype: Annotated[str | None, Setting("dtype of the stored weights", choices=DTYPES)] = (
        None
    )
    remat: Annotated[
        str | None,
        Setting("which activations the backward pass recomputes", choices=("none", "full", "dots")),
    ] = None
    scan_unroll: Annotated[
        int | None, Setting("layers per iteration of the scan over layers", least=1)
    ] = None

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of `models.config.ModelConfig`."""
        return given(self)

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        from models.config import ModelConfig

        try:
            ModelConfig(**self.settings())
        except (TypeError, ValueError) as error:
            yield "family", str(error)
