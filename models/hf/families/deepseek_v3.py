"""DeepSeek-V3 and R1 (arXiv:2412.19437): multi-head latent attention, a mixture of experts."""

from collections.abc import Mapping
from typing import Any

from models.config import Experts, LatentAttention, ModelConfig
from models.hf import float8
from models.hf.families.family import (
    LINEAR,
    OUT,
    QKV,
    VECTOR,
    Family,
    Rule,
    flag,
    integer,
    mapping,
    mlp,
    number,
    positive_int,
    refusal,
)

# Switches of the reference implementation for which this decoder supports a single setting.
_ONLY = {
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "rope_interleave": True,
}
# The only form of quantized weights that we read; see `models.hf.float8`.
_FLOAT8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [float8.BLOCK] * 2}
# Our field names -> the names in config.json.
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


def _read(fields: Mapping[str, Any]) -> dict[str, Any]:
    for field, only in _ONLY.items():
        if fields.get(field, only) != only:
            raise refusal(field, fields[field], only)
    quantization = mapping(fields, "quantization_config")
    if quantization and {key: quantization.get(key) for key in _FLOAT8} != _FLOAT8:
        raise refusal("quantization_config", quantization, _FLOAT8)
    optional = {"num_shared", "first_layer"}
    latent: dict[str, Any] = {
        ours: None if hf == "q_lora_rank" and not fields.get(hf) else positive_int(fields, hf)
        for ours, hf in _LATENT.items()
    }
    experts: dict[str, Any] = {
        ours: integer(hf, fields.get(hf) or 0, 0) if ours in optional else positive_int(fields, hf)
        for ours, hf in _EXPERTS.items()
        if ours not in ("normalize", "scale")
    }
    experts["normalize"] = flag(fields, "norm_topk_prob", True)
    experts["scale"] = number(fields, "routed_scaling_factor", 1.0)
    try:
        parts = {"latent": LatentAttention(**latent), "experts": Experts(**experts)}
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from None
    return parts | {"head_dim": latent["nope_dim"] + latent["rope_dim"]}


def _write(config: ModelConfig) -> dict[str, Any]:
    fields = {hf: getattr(config.latent, ours) for ours, hf in _LATENT.items()}
    fields |= {hf: getattr(config.experts, ours) for ours, hf in _EXPERTS.items()}
    # transformers does not write these fields, but vLLM and the publisher's own code read them. We
    # export no layers that predict further tokens.
    return fields | _ONLY | {"attention_bias": False, "num_nextn_predict_layers": 0}


def _layer(config: ModelConfig, stack: str) -> list[Rule]:
    rules = _latent_attention(config)
    if stack == "layers":
        return rules + _mixture(config)
    return rules + mlp("mlp.{}.kernel", "mlp.")


def _latent_attention(config: ModelConfig) -> list[Rule]:
    if config.latent.q_rank is None:
        rules = [("attention.q.kernel", "self_attn.q_proj.weight", QKV)]
    else:
        rules = [
            ("attention.q_a.kernel", "self_attn.q_a_proj.weight", LINEAR),
            ("attention.q_norm.scale", "self_attn.q_a_layernorm.weight", VECTOR),
            ("attention.q_b.kernel", "self_attn.q_b_proj.weight", QKV),
        ]
    return rules + [
        ("attention.kv_a.kernel", "self_attn.kv_a_proj_with_mqa.weight", LINEAR),
        ("attention.kv_norm.scale", "self_attn.kv_a_layernorm.weight", VECTOR),
        ("attention.kv_b.kernel", "self_attn.kv_b_proj.weight", QKV),
        ("attention.o.kernel", "self_attn.o_proj.weight", OUT),
    ]


def _mixture(config: ModelConfig) -> list[Rule]:
    rules = [
        ("mlp.router.kernel", "mlp.gate.weight", LINEAR),
        ("mlp.router.bias", "mlp.gate.e_score_correction_bias", VECTOR),
    ]
    rules += mlp("mlp.{}", "mlp.experts.{expert}.")
    if config.experts.num_shared:
        rules += mlp("mlp.shared.{}.kernel", "mlp.shared_experts.")
    return rules


FAMILY = Family(
    class_name="DeepseekV3",
    read=_read,
    write=_write,
    layer=_layer,
    features=frozenset({"latent", "experts"}),
    rope_scaling="yarn",
    ignores=frozenset({"quantization_config"}),
    # DeepSeek's checkpoints hold extra layers for multi-token prediction.
    further_layers=True,
)
