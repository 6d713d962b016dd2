"""`ModelConfig` from and to the `config.json` of a Hugging Face checkpoint."""

from collections.abc import Mapping
from typing import Any

from models.config import FAMILIES, ModelConfig, RopeScaling

_CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}

# What is on top of the decoder. A classifier of one label is a scalar head: that of tokens has a
# bias, that of sequences has none.
CAUSAL_LM = "ForCausalLM"
TOKEN_CLASSIFICATION = "ForTokenClassification"
SEQUENCE_CLASSIFICATION = "ForSequenceClassification"

# Switches of the reference implementation for which this decoder knows one setting only.
_ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}

_ROPE_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_length": "original_max_position_embeddings",
}


def config_from_hf(
    fields: Mapping[str, Any], head: str = CAUSAL_LM, **changes: Any
) -> ModelConfig:
    """The decoder that a parsed `config.json` describes.

    Both spellings of the rotary settings are read: `rope_theta` with `rope_scaling`, and the
    `rope_parameters` of transformers 5. The dtypes are not taken from the file: they are a matter
    of the run, not of the checkpoint.

    Args:
      fields: the parsed file.
      head: what the checkpoint must have on top of the decoder, such as `CAUSAL_LM`.
      **changes: fields of `ModelConfig` to set otherwise, e.g. `dtype="bfloat16"`.

    Raises:
      ValueError: a missing field, or a setting that the decoder does not implement.
    """
    family = fields.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={family!r} is not supported; only {', '.join(FAMILIES)} are"
        )
    for architecture in fields.get("architectures") or ():
        if architecture != _CLASSES[family] + head:
            raise _refusal("architectures", [architecture], [_CLASSES[family] + head])
    for field, only in _ONLY.items():
        # transformers itself ignores the field for Qwen2, whose biases are fixed.
        ignored = family == "qwen2" and field == "attention_bias"
        if fields.get(field, only) != only and not ignored:
            raise _refusal(field, fields[field], only)

    heads = _positive_int(fields, "num_attention_heads")
    embed = _positive_int(fields, "hidden_size")
    layers = _positive_int(fields, "num_hidden_layers")
    _refuse_sliding_window(fields, layers)
    rope_theta, rope_scaling = _rope(fields)
    config = ModelConfig(
        family=family,
        vocab_size=_positive_int(fields, "vocab_size"),
        embed_dim=embed,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=_positive_int(fields, "num_key_value_heads", default=heads),
        head_dim=_positive_int(
            fields, "head_dim", default=128 if family == "qwen3" else embed // heads
        ),
        mlp_dim=_positive_int(fields, "intermediate_size"),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        norm_eps=float(fields.get("rms_norm_eps", 1e-6)),
        tie_embeddings=bool(fields.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        max_length=_positive_int(fields, "max_position_embeddings"),
    )
    return config.replace(**changes)


def config_to_hf(config: ModelConfig, head: str = CAUSAL_LM) -> dict[str, Any]:
    """The fields of a `config.json` that `transformers` (4 and 5) and vLLM read; no token ids.

    Raises:
      ValueError: switches that the family's reference implementation does not have.
    """
    for switch, owner in (("qkv_bias", "qwen2"), ("qk_norm", "qwen3")):
        if getattr(config, switch) != (config.family == owner):
            raise ValueError(
                f"family={config.family!r} with {switch}={getattr(config, switch)} has no Hugging "
                f"Face equivalent; {switch} belongs to {owner}, and only there"
            )
    scaling = None
    if config.rope_scaling is not None:
        scaling = {hf: getattr(config.rope_scaling, ours) for ours, hf in _ROPE_SCALING.items()}
        scaling["rope_type"] = "llama3"
    fields = {
        "architectures": [_CLASSES[config.family] + head],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": config.param_dtype,
    }
    if head != CAUSAL_LM:
        # One label, from which transformers knows the width of the head.
        fields |= {"id2label": {"0": "score"}, "label2id": {"score": 0}, "classifier_dropout": 0.0}
    if config.family == "llama":
        return fields | {"attention_bias": False, "mlp_bias": False}
    return fields | {"use_sliding_window": False}


def _refusal(field: str, value: Any, only: Any) -> ValueError:
    return ValueError(f"config.json: {field}={value!r} is not supported; only {only!r} is")


def _positive_int(fields: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = fields.get(field)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"config.json: {field} is missing")
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"config.json: {field}={value!r} is not a positive integer")
    return value


def _refuse_sliding_window(fields: Mapping[str, Any], num_layers: int) -> None:
    # Published Qwen configs name a window that they do not use; only one in use is refused.
    if layer_types := fields.get("layer_types"):
        if other := sorted(set(layer_types) - {"full_attention"}):
            raise _refusal("layer_types", other[0], "full_attention")
    elif fields.get("use_sliding_window") and fields.get("max_window_layers", 0) < num_layers:
        raise _refusal("use_sliding_window", True, False)


def _rope(fields: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    rope = fields.get(name) or {}
    theta = float(rope.get("rope_theta") or fields.get("rope_theta") or 10_000.0)
    for holder, prefix in ((rope, f"{name}."), (fields, "")):
        if (partial := holder.get("partial_rotary_factor")) not in (None, 1):
            raise _refusal(f"{prefix}partial_rotary_factor", partial, 1.0)
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if rope_type == "default":
        return theta, None
    if rope_type != "llama3":
        raise ValueError(
            f"config.json: {name}.rope_type={rope_type!r} is not supported; only 'default' and "
            "'llama3' are"
        )
    if missing := sorted(set(_ROPE_SCALING.values()) - set(rope)):
        raise ValueError(f"config.json: {name}.{missing[0]} is missing")
    return theta, RopeScaling(**{ours: rope[hf] for ours, hf in _ROPE_SCALING.items()})
