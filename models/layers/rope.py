"""Rotary position embeddings (RoFormer, arXiv:2104.09864), with Llama 3's and YaRN's scaling."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig, YarnScaling


def rope_frequencies(config: ModelConfig) -> jax.Array:
    """Angular frequency of each rotated pair, `[rope_dim / 2]`, float32.

    RoFormer (arXiv:2104.09864, eq. 15), scaled to a longer context where configured: short
    wavelengths are kept, long ones divided by `factor`, those between blended. Llama 3 blends by
    the number of cycles in the original context; YaRN (arXiv:2309.00071, section 3.2) by the pair,
    from the whole one at which a pair turns `beta_fast` times to that for `beta_slow`.
    """
    # In NumPy, while tracing: XLA's power is off by an ulp in a third of the frequencies, which
    # at positions near 10,000 moves logits by 1e-3 from those the checkpoint was trained to give.
    # So is NumPy's own in float32 on some machines; rounded from float64 it is the same on all.
    exponents = np.arange(0, config.rope_dim, 2) / config.rope_dim
    power = (np.float64(config.rope_theta) ** exponents).astype(np.float32)
    frequencies = np.float32(1) / power
    scaling = config.rope_scaling
    if scaling is None:
        return jnp.asarray(frequencies)
    if isinstance(scaling, YarnScaling):
        kept = 1 - np.clip(_yarn_ramp(config, scaling), 0.0, 1.0).astype(np.float32)
        divided = np.float32(1) / (np.float32(scaling.factor) * power)
        return jnp.asarray(divided * (1 - kept) + frequencies * kept)
    cycles = scaling.original_max_length * frequencies / (2 * math.pi)
    blend = (cycles - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blend = np.clip(blend, 0.0, 1.0)
    return jnp.asarray((1 - blend) * frequencies / scaling.factor + blend * frequencies)


def _yarn_ramp(config: ModelConfig, scaling: YarnScaling) -> np.ndarray:
    """0 at the last pair whose frequency is kept, 1 at the first that is divided; straight."""

    def pair_of(turns):
        wavelength = scaling.original_max_length / (turns * 2 * math.pi)
        return config.rope_dim * math.log(wavelength) / (2 * math.log(config.rope_theta))

    first = max(math.floor(pair_of(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_of(scaling.beta_slow)), config.rope_dim - 1)
    return (np.arange(config.rope_dim // 2) - first) / max(last - first, 0.001)


def rope_angles(positions: jax.Array, config: ModelConfig) -> jax.Array:
    """Cosine and sine of every position's rotations, `[..., 2, rope_dim / 2]`, float32.

    With YaRN, times what it multiplies rotated queries and keys by.
    """
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    angles = jnp.stack([jnp.cos(angles), jnp.sin(angles)], -2)
    if isinstance(config.rope_scaling, YarnScaling):
        angles *= config.rope_scaling.rotation_scale
    return angles


def apply_rope(x_BTNH: jax.Array, rope_BT2F: jax.Array) -> jax.Array:
    """Rotates pairs (i, i + H/2), the half-split convention of HF checkpoints. Keeps the dtype."""
    cos, sin = rope_BT2F[:, :, None, 0], rope_BT2F[:, :, None, 1]
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    # XLA's CPU backend fuses no concatenation into its readers, which would rotate once per key.
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTNH.dtype)
