"""Converts `ModelConfig` from and to the fields of a GGUF file."""

import dataclasses
from typing import Any

import numpy as np

from models.config import ModelConfig, RopeScaling, YarnScaling
from models.gguf.header import Header
from models.gguf.tensors import ROPE_FACTORS, GgufTensor, count_layers
from models.layers.rope import rope_frequencies

# llama.cpp's names of architectures are those of `ModelConfig.family`.
ARCHITECTURES = ("llama", "qwen2", "qwen3")
EMBEDDING, HEAD = "token_embd.weight", "output.weight"

# Fields under the architecture's name that we read or that change nothing.
_KNOWN = frozenset(
    (
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length",
        "attention.value_length", "attention.layer_norm_rms_epsilon", "rope.freq_base",
        "rope.dimension_count", "rope.scaling.original_context_length", "rope.scaling.finetuned",
    )
)  # fmt: skip
# Values of unread fields that change nothing; a value of 0, false or empty changes nothing too.
_NEUTRAL = {
    "attention.causal": True,
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scale_linear": 1.0,
}
# The rotary scaling of the published Llama 3.1 to 3.3, without its factor. A GGUF file holds only
# the divisor of each frequency; our exports also store the scaling in the field `SCALING_NOTE`.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_length": 8192}
SCALING_NOTE = "ergo.rope_scaling"


def config_from_gguf(header: Header, **changes: Any) -> ModelConfig:
    """Returns the `ModelConfig` that a GGUF file describes.

    Args:
      header: the header of the file.
      **changes: fields of `ModelConfig` that override the file, e.g. `dtype="bfloat16"`.

    Raises:
      ValueError: if a field is missing, malformed or contradicts the tensors, or if the decoder
        does not implement a setting; the message is one line that names the file.
    """
    family = header.text("general.architecture")
    if family not in ARCHITECTURES:
        raise ValueError(
            f"{header.path}: general.architecture={family!r} is not supported; only"
            f" {', '.join(ARCHITECTURES)} are"
        )
    _refuse_unknown(header, family)
    embed = header.integer(f"{family}.embedding_length")
    heads = header.integer(f"{family}.attention.head_count")
    layers = header.integer(f"{family}.block_count")
    if layers != (found := count_layers(list(header.tensors))):
        raise ValueError(
            f"{header.path}: {family}.block_count={layers}, but the file has tensors of {found}"
            " layers"
        )
    fields: dict[str, Any] = dict(
        vocab_size=_vocab_size(header, family, embed),
        embed_dim=embed,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=header.integer(f"{family}.attention.head_count_kv", heads),
        head_dim=_head_dim(header, family, embed, heads),
        mlp_dim=header.integer(f"{family}.feed_forward_length"),
        rope_theta=header.number(f"{family}.rope.freq_base", 10_000.0),
        norm_eps=header.number(f"{family}.attention.layer_norm_rms_epsilon"),
        tie_embeddings=HEAD not in header.tensors,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        max_length=header.integer(f"{family}.context_length"),
    )
    try:
        config = ModelConfig(family=family, **fields)
    except ValueError as error:
        raise ValueError(f"{header.path}: {error}") from None
    return config.replace(rope_scaling=_rope_scaling(header, config)).replace(**changes)


def config_to_gguf(config: ModelConfig) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns the GGUF fields of a decoder and the divisors of its rotary frequencies.

    Returns:
      `(fields, factors)`: the fields by their full names, and the float32 divisors `[head_dim / 2]`
      for the tensor `ROPE_FACTORS`, or None if the decoder scales no frequency.

    Raises:
      ValueError: if GGUF files of these architectures cannot describe the decoder.
    """
    if config.family not in ARCHITECTURES:
        raise ValueError(
            f"family={config.family!r} cannot be written as GGUF; only"
            f" {', '.join(ARCHITECTURES)} can"
        )
    for switch, owner in (("qkv_bias", "qwen2"), ("qk_norm", "qwen3")):
        if getattr(config, switch) != (config.family == owner):
            raise ValueError(
                f"family={config.family!r} with {switch}={getattr(config, switch)} cannot be"
                f" written as GGUF; {switch} belongs to {owner}, and only there"
            )
    factors = None
    if isinstance(config.rope_scaling, YarnScaling):
        raise ValueError("rope_scaling=YarnScaling cannot be written as GGUF for this family")
    if config.rope_scaling is not None:
        plain = np.asarray(rope_frequencies(config.replace(rope_scaling=None)))
        factors = (plain / np.asarray(rope_frequencies(config))).astype(np.float32)
    fields = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_length,
        "embedding_length": config.embed_dim,
        "block_count": config.num_layers,
        "feed_forward_length": config.mlp_dim,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_theta),
    }
    named = {f"{config.family}.{name}": value for name, value in fields.items()}
    if config.rope_scaling is not None:
        named[SCALING_NOTE] = [float(x) for x in dataclasses.astuple(config.rope_scaling)]
    return {"general.architecture": config.family} | named, factors


def _refuse_unknown(header: Header, family: str) -> None:
    """Refuses a field that we do not read, because it may change what the model computes."""
    for name, value in header.fields.items():
        if not name.startswith(f"{family}."):
            continue
        field = name.removeprefix(f"{family}.")
        if field in _KNOWN or (np.isscalar(value) and (not value or value == _NEUTRAL.get(field))):
            continue
        raise ValueError(f"{header.path}: {name}={value!r:.60} is not supported")


def _vocab_size(header: Header, family: str, embed: int) -> int:
    """Returns the number of embedding rows; refuses fields that contradict it."""
    if EMBEDDING not in header.tensors:
        raise ValueError(
            f"{header.path} has no tensor {EMBEDDING}; it is not a complete language model"
        )
    shape = header.tensors[EMBEDDING].shape
    if len(shape) != 2 or shape[1] != embed:
        raise ValueError(
            f"{header.path}: {EMBEDDING} has shape {list(shape)}, but {family}.embedding_length is"
            f" {embed}"
        )
    if (stated := header.integer(f"{family}.vocab_size", shape[0])) != shape[0]:
        raise ValueError(
            f"{header.path}: {family}.vocab_size={stated}, but {EMBEDDING} has {shape[0]} rows"
        )
    return shape[0]


def _head_dim(header: Header, family: str, embed: int, heads: int) -> int:
    if f"{family}.attention.key_length" not in header.fields and embed % heads:
        raise ValueError(
            f"{header.path}: {family}.embedding_length={embed} is not a multiple of"
            f" {family}.attention.head_count={heads}, and there is no"
            f" {family}.attention.key_length"
        )
    head_dim = header.integer(f"{family}.attention.key_length", embed // heads)
    for field in ("attention.value_length", "rope.dimension_count"):
        if (other := header.integer(f"{family}.{field}", head_dim)) != head_dim:
            raise ValueError(
                f"{header.path}: {family}.{field}={other} is not supported; only the dimension of"
                f" the heads, {head_dim}, is"
            )
    return head_dim


def _rope_scaling(header: Header, config: ModelConfig) -> RopeScaling | None:
    """Returns the scaling that gives the frequency divisors in the file."""
    info = header.tensors.get(ROPE_FACTORS)
    if info is None:
        return None
    if info.shape != (config.head_dim // 2,):
        raise ValueError(
            f"{header.path}: {ROPE_FACTORS} has shape {list(info.shape)}, but heads of"
            f" {config.head_dim} imply {[config.head_dim // 2]}"
        )
    factors = GgufTensor(header.path, ROPE_FACTORS, info)[slice(None),]
    if np.all(factors == 1):
        return None
    candidates = [RopeScaling(factor=float(str(factors.max())), **_LLAMA3)]
    note = header.fields.get(SCALING_NOTE)
    if isinstance(note, np.ndarray) and len(note) == 4 and np.all(note > 0) and note[2] > note[1]:
        *numbers, original = map(float, note.astype(str))
        candidates.append(RopeScaling(*numbers, original_max_length=int(original)))
    for scaling in candidates:
        _, expected = config_to_gguf(config.replace(rope_scaling=scaling))
        if expected is not None and np.allclose(factors, expected, rtol=1e-4):
            return scaling
    raise ValueError(
        f"{header.path}: {ROPE_FACTORS} is not the scaling of Llama 3.1 ({_LLAMA3}), which is the"
        " only one that is supported"
    )
