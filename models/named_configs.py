"""Configs of the published models of each family, as their `config.json` on the Hub states them.

Base and instruct (or Qwen3's post-trained) checkpoints of one size have weights of the same shapes.
Where their context length or the norm's epsilon differ, each has an entry of its own.
"""

from typing import Any

from models.config import Experts, LatentAttention, ModelConfig, RopeScaling, YarnScaling


def _llama(layers: int, embed: int, heads: int, mlp: int, head_dim: int, factor: float, tied: bool):
    return ModelConfig(
        family="llama",
        vocab_size=128_256,
        embed_dim=embed,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=head_dim,
        mlp_dim=mlp,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(
            factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_length=8192
        ),
        norm_eps=1e-5,
        tie_embeddings=tied,
        max_length=131_072,
    )


def _qwen2(layers: int, embed: int, heads: int, kv_heads: int, mlp: int, **changes: Any):
    small = embed <= 2048
    fields: dict[str, Any] = dict(
        family="qwen2",
        vocab_size=151_936 if small else 152_064,
        embed_dim=embed,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=embed // heads,
        mlp_dim=mlp,
        rope_theta=1_000_000.0,
        norm_eps=1e-6,
        tie_embeddings=small,
        qkv_bias=True,
        max_length=32_768,
    )
    return ModelConfig(**(fields | changes))


def _qwen3(layers: int, embed: int, heads: int, mlp: int, tied: bool = False):
    return ModelConfig(
        family="qwen3",
        vocab_size=151_936,
        embed_dim=embed,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        mlp_dim=mlp,
        rope_theta=1_000_000.0,
        norm_eps=1e-6,
        tie_embeddings=tied,
        qk_norm=True,
        max_length=40_960,
    )


NAMED_CONFIGS: dict[str, ModelConfig] = {
    "llama-3.1-8b": _llama(32, 4096, 32, 14_336, head_dim=128, factor=8.0, tied=False),
    "llama-3.1-70b": _llama(80, 8192, 64, 28_672, head_dim=128, factor=8.0, tied=False),
    "llama-3.2-1b": _llama(16, 2048, 32, 8192, head_dim=64, factor=32.0, tied=True),
    "llama-3.2-3b": _llama(28, 3072, 24, 8192, head_dim=128, factor=32.0, tied=True),
    "qwen2.5-0.5b": _qwen2(24, 896, 14, 2, 4864),
    "qwen2.5-1.5b": _qwen2(28, 1536, 12, 2, 8960, max_length=131_072),
    "qwen2.5-1.5b-instruct": _qwen2(28, 1536, 12, 2, 8960),
    "qwen2.5-3b": _qwen2(36, 2048, 16, 2, 11_008),
    "qwen2.5-7b": _qwen2(28, 3584, 28, 4, 18_944, max_length=131_072),
    "qwen2.5-7b-instruct": _qwen2(28, 3584, 28, 4, 18_944),
    "qwen2.5-14b": _qwen2(48, 5120, 40, 8, 13_824, max_length=131_072, norm_eps=1e-5),
    "qwen2.5-14b-instruct": _qwen2(48, 5120, 40, 8, 13_824),
    "qwen2.5-32b": _qwen2(64, 5120, 40, 8, 27_648, max_length=131_072, norm_eps=1e-5),
    "qwen2.5-32b-instruct": _qwen2(64, 5120, 40, 8, 27_648),
    # R1-Distill-Qwen, which was trained from these two, keeps their `rope_theta`.
    "qwen2.5-math-1.5b": _qwen2(28, 1536, 12, 2, 8960, max_length=4096, rope_theta=10_000.0),
    "qwen2.5-math-7b": _qwen2(28, 3584, 28, 4, 18_944, max_length=4096, rope_theta=10_000.0),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 12_288),
    "qwen3-14b": _qwen3(40, 5120, 40, 17_408),
    "qwen3-32b": _qwen3(64, 5120, 64, 25_600),
}
for _size in ("0.6b", "1.7b", "4b", "8b", "14b"):
    NAMED_CONFIGS[f"qwen3-{_size}-base"] = NAMED_CONFIGS[f"qwen3-{_size}"].replace(
        max_length=32_768
    )
for _name in (
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "qwen2.5-0.5b",
    "qwen2.5-3b",
):
    NAMED_CONFIGS[f"{_name}-instruct"] = NAMED_CONFIGS[_name]

# The checkpoints on the Hub also have a layer that predicts a second token (14 billion weights).
# This config leaves it out.
NAMED_CONFIGS["deepseek-v3"] = ModelConfig(
    family="deepseek_v3",
    vocab_size=129_280,
    embed_dim=7168,
    num_layers=61,
    num_heads=128,
    num_kv_heads=128,
    head_dim=192,
    mlp_dim=18_432,
    rope_theta=10_000.0,
    rope_scaling=YarnScaling(
        factor=40.0, original_max_length=4096, mscale=1.0, mscale_all_dim=1.0
    ),
    norm_eps=1e-6,
    latent=LatentAttention(kv_rank=512, q_rank=1536, nope_dim=128, rope_dim=64, value_dim=128),
    experts=Experts(
        num_experts=256, per_token=8, mlp_dim=2048, num_shared=1, groups=8, groups_per_token=4,
        normalize=True, scale=2.5, first_layer=3,
    ),
    max_length=163_840,
)  # fmt: skip
for _name in ("deepseek-v3-base", "deepseek-v3-0324", "deepseek-r1", "deepseek-r1-zero"):
    NAMED_CONFIGS[_name] = NAMED_CONFIGS["deepseek-v3"]

# Llama 3.3 is Llama 3.1 with further training; it has no base model of its own.
NAMED_CONFIGS["llama-3.3-70b-instruct"] = NAMED_CONFIGS["llama-3.1-70b"]


def named_config(name: str, **changes: Any) -> ModelConfig:
    """Returns the config of a published model.

    Args:
      name: a key of `NAMED_CONFIGS` in any case.
      changes: fields to change, such as `dtype`.

    Raises:
      ValueError: the name is not in `NAMED_CONFIGS`.
    """
    if name.lower() not in NAMED_CONFIGS:
        known = ", ".join(sorted(NAMED_CONFIGS))
        raise ValueError(f"model config {name!r} is unknown; choose one of {known}")
    return NAMED_CONFIGS[name.lower()].replace(**changes)
