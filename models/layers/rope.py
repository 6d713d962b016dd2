"""Rotary position embeddings (RoPE), with the context scaling of Llama 3 and of YaRN.

Source: RoFormer, arXiv:2104.09864. `RopeScaling` and `YarnScaling` in `models.config` hold the
settings.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig, YarnScaling


def rope_frequencies(config: ModelConfig) -> jax.Array:
    """Returns the angular frequency of each rotated pair, `[Y]`, float32.

    The frequencies are those of RoFormer (arXiv:2104.09864, eq. 15). If the config stretches them
    to a longer context, high frequencies (short wavelengths) stay, low frequencies are divided by
    `factor`, and frequencies between are a blend of both. Llama 3 blends by the number of cycles
    that a pair makes in the original context. YaRN (arXiv:2309.00071, section 3.2) blends by the
    pair's index, linearly between the pair that turns `beta_fast` times and the pair that turns
    `beta_slow` times, both rounded to whole indices.
    """
    # NumPy computes these while JAX traces, in float64, and rounds to float32. XLA's power is off
    # by an ulp in a third of the frequencies, which at positions near 10,000 moves logits by 1e-3
    # from those that the checkpoint was trained to give. NumPy's float32 power has the same fault
    # on some machines; the rounded float64 result is equal on all.
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
    """Returns a line over pairs `[Y]`: 0 where frequencies are last kept, 1 where first divided."""

    def pair_of(turns):
        wavelength = scaling.original_max_length / (turns * 2 * math.pi)
        return config.rope_dim * math.log(wavelength) / (2 * math.log(config.rope_theta))

    first = max(math.floor(pair_of(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_of(scaling.beta_slow)), config.rope_dim - 1)
    return (np.arange(config.rope_dim // 2) - first) / max(last - first, 0.001)


def rope_angles(positions: jax.Array, config: ModelConfig) -> jax.Array:
    """Returns cosine and sine of every position's rotations, `[..., 2, Y]`, float32.

    With YaRN both are multiplied by `YarnScaling.rotation_scale`.

    Args:
      positions: integers `[...]`.
    """
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    angles = jnp.stack([jnp.cos(angles), jnp.sin(angles)], -2)
    if isinstance(config.rope_scaling, YarnScaling):
        angles *= config.rope_scaling.rotation_scale
    return angles


def apply_rope(x_BTNH: jax.Array, rope_BT2Y: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of every head and keeps the dtype.

    HF checkpoints pair dimensions in this half-split convention.

    Args:
      x_BTNH: queries or keys; the whole H rotates.
      rope_BT2Y: `rope_angles` of the tokens' positions.
    """
    cos, sin = rope_BT2Y[:, :, None, 0], rope_BT2Y[:, :, None, 1]
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    # A concatenation, because XLA's CPU backend never fuses one into the code that reads it.
    # Fused code would rotate each query again for every key.
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTNH.dtype)
