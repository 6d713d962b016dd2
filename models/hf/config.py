"""Converts `ModelConfig` from and to the `config.json` of a Hugging Face checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import ModelConfig, RopeScaling, YarnScaling
from models.hf.families import get_family, owners
from models.hf.families.family import (
    FEATURES,
    flag,
    integer,
    mapping,
    names_of,
    number,
    positive_int,
    refusal,
)

# The heads that a decoder may have. A classifier with one label is a scalar head: the token
# classifier has a bias, the sequence classifier has none.
CAUSAL_LM = "ForCausalLM"
TOKEN_CLASSIFICATION = "ForTokenClassification"
SEQUENCE_CLASSIFICATION = "ForSequenceClassification"

# Switches of the reference implementation for which this decoder supports a single setting.
_ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}

# Kind of rotary scaling -> its class, and our field names -> the names in config.json.
_ROPE_SCALING = {
    "llama3": (
        RopeScaling,
        {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_length": "original_max_position_embeddings",
        },
    ),
    "yarn": (
        YarnScaling,
        {
            "factor": "factor",
            "original_max_length": "original_max_position_embeddings",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
            "mscale": "mscale",
            "mscale_all_dim": "mscale_all_dim",
        },
    ),
}


def config_from_hf(fields: Mapping[str, Any], head: str = CAUSAL_LM, **changes: Any) -> ModelConfig:
    """Returns the `ModelConfig` that a parsed `config.json` describes.

    The function reads both spellings of the rotary settings: `rope_theta` with `rope_scaling`, and
    the `rope_parameters` of transformers 5. It ignores the file's dtypes, because the run chooses
    the dtypes, not the checkpoint.

    Args:
      fields: the parsed file.
      head: the head that the checkpoint must have, such as `CAUSAL_LM`.
      **changes: fields of `ModelConfig` that override the file, e.g. `dtype="bfloat16"`.

    Raises:
      ValueError: if a field is missing or the decoder does not implement a setting.
    """
    name: Any = fields.get("model_type")  # `get_family` refuses what is not a known name.
    family = get_family(name)
    for architecture in names_of(fields, "architectures"):
        if architecture != family.class_name + head:
            raise refusal("architectures", [architecture], [family.class_name + head])
    for field, only in _ONLY.items():
        if fields.get(field, only) != only and field not in family.ignores:
            raise refusal(field, fields[field], only)
    parts = family.read(fields)

    heads = positive_int(fields, "num_attention_heads")
    layers = positive_int(fields, "num_hidden_layers")
    _refuse_sliding_window(fields, layers)
    rope_theta, rope_scaling = _rope(fields, family.rope_scaling)
    values = {
        "vocab_size": positive_int(fields, "vocab_size"),
        "embed_dim": positive_int(fields, "hidden_size"),
        "num_kv_heads": positive_int(fields, "num_key_value_heads", default=heads),
        "mlp_dim": positive_int(fields, "intermediate_size"),
        "max_length": positive_int(fields, "max_position_embeddings"),
        "norm_eps": number(fields, "rms_norm_eps", 1e-6),
        "tie_embeddings": flag(fields, "tie_word_embeddings", False),
    }
    try:
        config = ModelConfig(
            family=name,
            num_layers=layers,
            num_heads=heads,
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            qkv_bias="qkv_bias" in family.features,
            qk_norm="qk_norm" in family.features,
            **values,
            **parts,
        )
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from None
    return config.replace(**changes)


def config_to_hf(config: ModelConfig, head: str = CAUSAL_LM) -> dict[str, Any]:
    """Returns the `config.json` fields that `transformers` (4 and 5) and vLLM read.

    Token ids are not among them; `models.hf.export` adds those.

    Raises:
      ValueError: if `config` sets a switch that the family's reference implementation lacks.
    """
    family = get_family(config.family)
    for feature in FEATURES:
        value = getattr(config, feature)
        if bool(value) != (feature in family.features):
            raise ValueError(
                f"family={config.family!r} with {feature}={value} has no Hugging Face equivalent; "
                f"{feature} belongs to {', '.join(owners(feature))}, and only there"
            )
    scaling = None
    for kind, (scaling_class, names) in _ROPE_SCALING.items():
        if isinstance(config.rope_scaling, scaling_class):
            scaling = {hf: getattr(config.rope_scaling, ours) for ours, hf in names.items()}
            scaling["rope_type"] = kind
    fields = {
        "architectures": [family.class_name + head],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.rope_dim,  # Latent attention uses the same field name.
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": config.param_dtype,
    }
    if head != CAUSAL_LM:
        # transformers derives the width of the head from the number of labels, which is one.
        fields |= {"id2label": {"0": "score"}, "label2id": {"score": 0}, "classifier_dropout": 0.0}
    return fields | family.write(config)


def _refuse_sliding_window(fields: Mapping[str, Any], num_layers: int) -> None:
    # Published Qwen configs name a window but do not use it; refuse only a window in use.
    if layer_types := names_of(fields, "layer_types"):
        if other := sorted(set(layer_types) - {"full_attention"}):
            raise refusal("layer_types", other[0], "full_attention")
    elif flag(fields, "use_sliding_window", False):
        first = fields.get("max_window_layers")
        if integer("max_window_layers", 0 if first is None else first, 0) < num_layers:
            raise refusal("use_sliding_window", True, False)


def _rope(
    fields: Mapping[str, Any], supported: str
) -> tuple[float, RopeScaling | YarnScaling | None]:
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    rope = mapping(fields, name)
    holder, prefix = (rope, f"{name}.") if rope.get("rope_theta") is not None else (fields, "")
    theta = number(holder, "rope_theta", 10_000.0, f"{prefix}rope_theta")
    for holder, prefix in ((rope, f"{name}."), (fields, "")):
        if (partial := holder.get("partial_rotary_factor")) not in (None, 1):
            raise refusal(f"{prefix}partial_rotary_factor", partial, 1.0)
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if rope_type == "default":
        return theta, None
    if rope_type != supported:
        raise ValueError(
            f"config.json: {name}.rope_type={rope_type!r:.80} is not supported; only 'default' and "
            f"{supported!r} are"
        )
    for field, only in (("attention_factor", None), ("truncate", True)):
        if rope.get(field, only) != only:
            raise refusal(f"{name}.{field}", rope[field], only)
    scaling_class, names = _ROPE_SCALING[rope_type]
    given: dict[str, Any] = {
        ours: number(rope, hf, 0.0, f"{name}.{hf}", zero=ours.startswith("mscale"))
        for ours, hf in names.items()
        if rope.get(hf) is not None
    }
    for field in dataclasses.fields(scaling_class):
        if field.default is dataclasses.MISSING and field.name not in given:
            raise ValueError(f"config.json: {name}.{names[field.name]} is missing")
    if "original_max_length" in given:
        hf = names["original_max_length"]
        given["original_max_length"] = integer(f"{name}.{hf}", rope[hf], 1)
    if rope_type == "llama3" and given["high_freq_factor"] <= given["low_freq_factor"]:
        raise ValueError(
            f"config.json: {name}.high_freq_factor={given['high_freq_factor']} is not above"
            f" low_freq_factor={given['low_freq_factor']}"
        )
    return theta, scaling_class(**given)
