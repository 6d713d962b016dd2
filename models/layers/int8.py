"""Rounds arrays to int8 with a factor for each of their vectors."""

import jax
import jax.numpy as jnp


def rounded(x: jax.Array, axes: int | tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns `x / factors` in int8, and the factors, float32.

    A factor is the largest number of its vector over 127, so that nothing is cut off and 0 stays 0.

    Args:
      x: the array.
      axes: the axes of a vector. The factors are without them.
    """
    x = x.astype(jnp.float32)
    largest = jnp.abs(x).max(axes, keepdims=True)
    factors = jnp.where(largest > 0, largest / 127, 1.0)
    return jnp.round(x / factors).astype(jnp.int8), factors.squeeze(axes)
