"""`ModelConfig` from and to the `config.json` of a Hugging Face checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import (
    FAMILIES,
    Experts,
    LatentAttention,
    ModelConfig,
    RopeScaling,
    YarnScaling,
)
from models.hf import float8

_CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "deepseek_v3": "DeepseekV3"}

# Sizes above this are mistakes, and would overflow further on.
_LARGEST = 2**31 - 1

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

_ONLY_DEEPSEEK = {
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "rope_interleave": True,
}
# The one form of quantized weights that is read; see `models.hf.float8`.
_FLOAT8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [float8.BLOCK] * 2}

# Kind of scaling -> its class, and our names of its numbers with theirs.
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
_LATENT = {
    "kv_rank": "kv_lora_rank",
    "q_rank": "q_lora_rank",
    "nope_dim": "qk_nope_head_dim",
    "rope_dim": "qk_rope_head_dim",
    "value_dim": "v_head_dim",
}
_EXPERTS = {
    "num_experts": "n_routed_experts",
    "per_token": "num_experts_per_tok",
    "mlp_dim": "moe_intermediate_size",
    "num_shared": "n_shared_experts",
    "groups": "n_group",
    "groups_per_token": "topk_group",
    "normalize": "norm_topk_prob",
    "scale": "routed_scaling_factor",
    "first_layer": "first_k_dense_replace",
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
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={family!r:.80} is not supported; only"
            f" {', '.join(FAMILIES)} are"
        )
    for architecture in _list(fields, "architectures"):
        if architecture != _CLASSES[family] + head:
            raise _refusal("architectures", [architecture], [_CLASSES[family] + head])
    for field, only in _ONLY.items():
        # transformers itself ignores the field for Qwen2, whose biases are fixed.
        ignored = family == "qwen2" and field == "attention_bias"
        ignored |= family == "deepseek_v3" and field == "quantization_config"
        if fields.get(field, only) != only and not ignored:
            raise _refusal(field, fields[field], only)
    parts = _deepseek(fields) if family == "deepseek_v3" else {}

    heads = _positive_int(fields, "num_attention_heads")
    embed = _positive_int(fields, "hidden_size")
    layers = _positive_int(fields, "num_hidden_layers")
    _refuse_sliding_window(fields, layers)
    rope_theta, rope_scaling = _rope(fields, "yarn" if family == "deepseek_v3" else "llama3")
    if family == "deepseek_v3":
        head_dim = parts["latent"].nope_dim + parts["latent"].rope_dim
    else:
        default = 128 if family == "qwen3" else embed // heads
        head_dim = _positive_int(fields, "head_dim", default)
    sizes = {
        "vocab_size": _positive_int(fields, "vocab_size"),
        "num_kv_heads": _positive_int(fields, "num_key_value_heads", default=heads),
        "mlp_dim": _positive_int(fields, "intermediate_size"),
        "max_length": _positive_int(fields, "max_position_embeddings"),
        "norm_eps": _number(fields, "rms_norm_eps", 1e-6),
        "tie_embeddings": _flag(fields, "tie_word_embeddings", False),
    }
    try:
        config = ModelConfig(
            family=family,
            embed_dim=embed,
            num_layers=layers,
            num_heads=heads,
            head_dim=head_dim,
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            **sizes,
            **parts,
        )
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from None
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
    for part in ("latent", "experts"):
        if (getattr(config, part) is None) == (config.family == "deepseek_v3"):
            raise ValueError(
                f"family={config.family!r} with {part}={getattr(config, part)} has no Hugging Face"
                " equivalent; deepseek_v3 has latent attention and experts, the others neither"
            )
    scaling = None
    for kind, (scaling_class, names) in _ROPE_SCALING.items():
        if isinstance(config.rope_scaling, scaling_class):
            scaling = {hf: getattr(config.rope_scaling, ours) for ours, hf in names.items()}
            scaling["rope_type"] = kind
    fields = {
        "architectures": [_CLASSES[config.family] + head],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.rope_dim,  # So it is called for latent attention too.
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
    if config.family == "deepseek_v3":
        return fields | _deepseek_to_hf(config)
    if config.family == "llama":
        return fields | {"attention_bias": False, "mlp_bias": False}
    return fields | {"use_sliding_window": False}


def _refusal(field: str, value: Any, only: Any) -> ValueError:
    return ValueError(f"config.json: {field}={value!r:.80} is not supported; only {only!r} is")


def _positive_int(fields: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = fields.get(field)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"config.json: {field} is missing")
    return _int(field, value, 1)


def _int(field: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
        kind = "a positive integer" if least else "an integer from 0 on"
        raise ValueError(f"config.json: {field}={value!r:.80} is not {kind} below 2^31")
    return value


def _number(
    fields: Mapping[str, Any],
    field: str,
    default: float,
    name: str = "",
    *,
    zero: bool = False,
) -> float:
    """A finite number above zero, or from zero on."""
    value = fields.get(field)
    if value is None:
        value = default
    # Nothing of the kind is larger, and float32 ends at 3e38.
    right = not isinstance(value, bool) and isinstance(value, int | float) and value <= 1e30
    if not right or not (value > 0 or (zero and value == 0)):
        least = "from 0" if zero else "above 0"
        raise ValueError(
            f"config.json: {name or field}={value!r:.80} is not a number {least} and up to 1e30"
        )
    return float(value)


def _flag(fields: Mapping[str, Any], field: str, default: bool) -> bool:
    value = fields.get(field)
    if value is None:
        value = default
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {field}={value!r:.80} is not true or false")
    return value


def _list(fields: Mapping[str, Any], field: str) -> list[str]:
    value = fields.get(field) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"config.json: {field}={value!r:.80} is not a list of names")
    return value


def _object(fields: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = fields.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"config.json: {field}={value!r:.80} is not an object")
    return value or {}


def _refuse_sliding_window(fields: Mapping[str, Any], num_layers: int) -> None:
    # Published Qwen configs name a window that they do not use; only one in use is refused.
    if layer_types := _list(fields, "layer_types"):
        if other := sorted(set(layer_types) - {"full_attention"}):
            raise _refusal("layer_types", other[0], "full_attention")
    elif _flag(fields, "use_sliding_window", False):
        first = fields.get("max_window_layers")
        if _int("max_window_layers", 0 if first is None else first, 0) < num_layers:
            raise _refusal("use_sliding_window", True, False)


def _rope(
    fields: Mapping[str, Any], supported: str
) -> tuple[float, RopeScaling | YarnScaling | None]:
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    rope = _object(fields, name)
    holder, prefix = (rope, f"{name}.") if rope.get("rope_theta") is not None else (fields, "")
    theta = _number(holder, "rope_theta", 10_000.0, f"{prefix}rope_theta")
    for holder, prefix in ((rope, f"{name}."), (fields, "")):
        if (partial := holder.get("partial_rotary_factor")) not in (None, 1):
            raise _refusal(f"{prefix}partial_rotary_factor", partial, 1.0)
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
            raise _refusal(f"{name}.{field}", rope[field], only)
    scaling_class, names = _ROPE_SCALING[rope_type]
    given: dict[str, Any] = {
        ours: _number(rope, hf, 0.0, f"{name}.{hf}", zero=ours.startswith("mscale"))
        for ours, hf in names.items()
        if rope.get(hf) is not None
    }
    for field in dataclasses.fields(scaling_class):
        if field.default is dataclasses.MISSING and field.name not in given:
            raise ValueError(f"config.json: {name}.{names[field.name]} is missing")
    if "original_max_length" in given:
        hf = names["original_max_length"]
        given["original_max_length"] = _int(f"{name}.{hf}", rope[hf], 1)
    if rope_type == "llama3" and given["high_freq_factor"] <= given["low_freq_factor"]:
        raise ValueError(
            f"config.json: {name}.high_freq_factor={given['high_freq_factor']} is not above"
            f" low_freq_factor={given['low_freq_factor']}"
        )
    return theta, scaling_class(**given)


def _deepseek(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `ModelConfig` that only DeepSeek-V3 has."""
    for field, only in _ONLY_DEEPSEEK.items():
        if fields.get(field, only) != only:
            raise _refusal(field, fields[field], only)
    quantization = _object(fields, "quantization_config")
    if quantization and {key: quantization.get(key) for key in _FLOAT8} != _FLOAT8:
        raise _refusal("quantization_config", quantization, _FLOAT8)
    optional = {"num_shared", "first_layer"}
    latent = {
        ours: None if hf == "q_lora_rank" and not fields.get(hf) else _positive_int(fields, hf)
        for ours, hf in _LATENT.items()
    }
    experts: dict[str, Any] = {
        ours: _int(hf, fields.get(hf) or 0, 0) if ours in optional else _positive_int(fields, hf)
        for ours, hf in _EXPERTS.items()
        if ours not in ("normalize", "scale")
    }
    experts["normalize"] = _flag(fields, "norm_topk_prob", True)
    experts["scale"] = _number(fields, "routed_scaling_factor", 1.0)
    try:
        return {"latent": LatentAttention(**latent), "experts": Experts(**experts)}
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from None


def _deepseek_to_hf(config: ModelConfig) -> dict[str, Any]:
    fields = {hf: getattr(config.latent, ours) for ours, hf in _LATENT.items()}
    fields |= {hf: getattr(config.experts, ours) for ours, hf in _EXPERTS.items()}
    # What transformers leaves out and vLLM and the publisher's own code read; and that there are
    # no layers for the prediction of further tokens.
    return fields | _ONLY_DEEPSEEK | {"attention_bias": False, "num_nextn_predict_layers": 0}
