"""Defines `Family`, the description of a model family, and helpers that families share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from models.config import ModelConfig

# Fields of `ModelConfig` that a family's reference implementation always has or never has.
FEATURES = ("qkv_bias", "qk_norm", "latent", "experts")

# A larger size is a mistake and would overflow later.
_LARGEST = 2**31 - 1

# How a stored tensor flattens our axes; see `models.hf.tensors.TensorRule.axes`. Our shapes are
# QKV [D, N, H], OUT [N, H, D], LINEAR [in, out] and BIAS [N, H]. VECTOR and MATRIX are unchanged.
QKV, OUT, LINEAR, BIAS = ((1, 2), (0,)), ((2,), (0, 1)), ((1,), (0,)), ((0, 1),)
VECTOR, MATRIX = ((0,),), ((0,), (1,))

# The path of a parameter in a layer, the name of its tensor in a layer, and its axes.
Rule = tuple[str, str, tuple[tuple[int, ...], ...]]


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of Hugging Face checkpoints.

    Attributes:
      class_name: prefix of its class names in `transformers`.
      read: maps `config.json` to the `ModelConfig` fields that this family reads in its own way:
        `head_dim`, `latent`, `experts`. Raises `ValueError` for settings that the decoder lacks.
      write: maps a config to the `config.json` fields that only this family has.
      layer: maps (config, name of the stack of layers) to the rules of attention and MLP.
      features: the names from `FEATURES` that it has.
      rope_scaling: the `rope_type` that the family supports besides "default".
      ignores: switches of `config.json` that its reference implementation does not read, or that
        `read` checks itself.
      further_layers: whether checkpoints may hold layers after the last one; they are not read.
    """

    class_name: str
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]
    layer: Callable[[ModelConfig, str], list[Rule]]
    features: frozenset[str] = frozenset()
    rope_scaling: str = "llama3"
    ignores: frozenset[str] = frozenset()
    further_layers: bool = False


def read_head_dim(fields: Mapping[str, Any], default: int | None = None) -> dict[str, Any]:
    """Reads `head_dim`; if it is missing, uses `default` or else the width over the heads."""
    if default is None:
        heads = positive_int(fields, "num_attention_heads")
        default = positive_int(fields, "hidden_size") // heads
    return {"head_dim": positive_int(fields, "head_dim", default)}


def grouped_query_layer(config: ModelConfig, stack: str) -> list[Rule]:
    """Returns the rules of grouped-query attention (biases, norms as configured) and an MLP."""
    rules = [(f"attention.{p}.kernel", f"self_attn.{p}_proj.weight", QKV) for p in "qkv"]
    rules += [("attention.o.kernel", "self_attn.o_proj.weight", OUT)]
    if config.qkv_bias:
        rules += [(f"attention.{p}.bias", f"self_attn.{p}_proj.bias", BIAS) for p in "qkv"]
    if config.qk_norm:
        rules += [(f"attention.{p}_norm.scale", f"self_attn.{p}_norm.weight", VECTOR) for p in "qk"]
    return rules + mlp("mlp.{}.kernel", "mlp.")


def mlp(ours: str, theirs: str) -> list[Rule]:
    """Returns the rules of a gated MLP; `{}` in our path stands for the projection."""
    return [(ours.format(p), f"{theirs}{p}_proj.weight", LINEAR) for p in ("gate", "up", "down")]


def refusal(field: str, value: Any, only: Any) -> ValueError:
    """Returns the error for a value of a field for which the decoder supports only one value."""
    return ValueError(f"config.json: {field}={value!r:.80} is not supported; only {only!r} is")


def positive_int(fields: Mapping[str, Any], field: str, default: int | None = None) -> int:
    """Reads a field that must be a whole number above zero.

    Raises:
      ValueError: if the value is anything else, or the field is missing and has no default.
    """
    value = fields.get(field)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"config.json: {field} is missing")
    return integer(field, value, 1)


def integer(field: str, value: Any, least: int) -> int:
    """Checks that a value is a whole number of at least `least` (0 or 1), and returns it."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
        kind = "a positive integer" if least else "an integer from 0 on"
        raise ValueError(f"config.json: {field}={value!r:.80} is not {kind} below 2^31")
    return value


def number(
    fields: Mapping[str, Any],
    field: str,
    default: float,
    name: str = "",
    *,
    zero: bool = False,
) -> float:
    """Reads a finite number above zero (or zero, with `zero`); errors call the field `name`."""
    value = fields.get(field)
    if value is None:
        value = default
    # No sensible setting is larger, and float32 ends at 3e38.
    right = not isinstance(value, bool) and isinstance(value, int | float) and value <= 1e30
    if not right or not (value > 0 or (zero and value == 0)):
        least = "from 0" if zero else "above 0"
        raise ValueError(
            f"config.json: {name or field}={value!r:.80} is not a number {least} and up to 1e30"
        )
    return float(value)


def flag(fields: Mapping[str, Any], field: str, default: bool) -> bool:
    """Reads a field that must be true or false."""
    value = fields.get(field)
    if value is None:
        value = default
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {field}={value!r:.80} is not true or false")
    return value


def names_of(fields: Mapping[str, Any], field: str) -> list[str]:
    """Reads a field that must be a list of strings; a missing field gives an empty list."""
    value = fields.get(field) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"config.json: {field}={value!r:.80} is not a list of names")
    return value


def mapping(fields: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Reads a field that must be a JSON object; a missing field gives an empty one."""
    value = fields.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"config.json: {field}={value!r:.80} is not an object")
    return value or {}
