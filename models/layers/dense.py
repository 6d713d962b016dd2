"""RMSNorm, linear projections and the gated MLP, as Flax NNX modules.

All other layers of the decoder are built from these.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.cpu.reductions import row_sum
from models.sharding import constrain


def normal(
    rngs: nnx.Rngs,
    shape: Sequence[int],
    fan_in: int,
    axes: Sequence[str | None],
    dtype: Any,
) -> nnx.Param:
    """Draws a kernel from a truncated normal distribution with variance 1 / fan_in.

    Args:
      axes: logical axis of each dimension; see `models.sharding`.
    """
    # A normal distribution that is cut at two standard deviations keeps 0.88 of its deviation.
    draw = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape, jnp.float32)
    return nnx.Param((draw * fan_in**-0.5 / 0.87962566).astype(dtype), logical_axes=axes)


class RMSNorm(nnx.Module):
    """Computes x / rms(x) * scale over the last dimension, in float32 (arXiv:1910.07467)."""

    def __init__(self, size: int, axis: str, config: ModelConfig):
        self.scale = nnx.Param(jnp.ones(size, config.param_dtype), logical_axes=(axis,))
        self.eps = config.norm_eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes the last dimension of `x`; keeps the dtype."""
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(row_sum(x32 * x32)[..., None] / x.shape[-1] + self.eps)
        return (x32 * inverse).astype(x.dtype) * self.scale[...].astype(x.dtype)


class Projection(nnx.Module):
    """A linear map: the kernel's first `in_dims` axes are its inputs, the others its outputs."""

    def __init__(
        self,
        shape: Sequence[int],
        axes: Sequence[str | None],
        in_dims: int,
        config: ModelConfig,
        rngs: nnx.Rngs,
        bias: bool = False,
    ):
        dtype = config.param_dtype
        if config.int8_kernels:  # Nothing is trained from these: see `models.decoding.weights`.
            dtype = jnp.int8
            ones = jnp.ones(shape[in_dims:], jnp.float32)
            self.scale = nnx.Param(ones, logical_axes=tuple(axes[in_dims:]))
        self.kernel = normal(rngs, shape, math.prod(shape[:in_dims]), axes, dtype)
        if bias:
            zeros = jnp.zeros(shape[in_dims:], config.param_dtype)
            self.bias = nnx.Param(zeros, logical_axes=tuple(axes[in_dims:]))
        self.in_dims, self.has_bias, self.scaled = in_dims, bias, config.int8_kernels

    def weights(self, dtype: Any) -> jax.Array:
        """Returns the kernel in `dtype`, with the change of its adapter if it has one."""
        kernel = self.kernel[...]
        if (adapter := getattr(self, "adapter", None)) is not None:  # See `models.lora`.
            kernel = kernel + adapter.change()
        if self.scaled:
            kernel = kernel.astype(jnp.float32) * self.scale[...]
        return kernel.astype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[..., *outputs]` for `x` of shape `[..., *inputs]`, in the dtype of `x`."""
        # This is one [tokens, in] x [in, out] product, because XLA's CPU backend runs the backward
        # pass of the equivalent product over [batch, length, in] at two thirds of the speed.
        kernel = self.kernel[...].astype(x.dtype)
        lead, out = x.shape[: x.ndim - self.in_dims], kernel.shape[self.in_dims :]
        fan_in = math.prod(kernel.shape[: self.in_dims])
        x = x.reshape(-1, fan_in)
        y = x @ kernel.reshape(fan_in, -1)
        if (adapter := getattr(self, "adapter", None)) is not None:
            y = y + adapter(x)
        y = y.reshape(*lead, *out)
        if self.scaled:
            y = (y.astype(jnp.float32) * self.scale[...]).astype(x.dtype)
        return y + self.bias[...].astype(x.dtype) if self.has_bias else y


class MLP(nnx.Module):
    """The SwiGLU MLP (arXiv:2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, mlp_dim: int):
        D, F = config.embed_dim, mlp_dim
        self.gate = Projection((D, F), ("embed", "mlp"), 1, config, rngs)
        self.up = Projection((D, F), ("embed", "mlp"), 1, config, rngs)
        self.down = Projection((F, D), ("mlp", "embed"), 1, config, rngs)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Returns `[B, T, D]`."""
        h_BTF = jax.nn.silu(self.gate(x_BTD)) * self.up(x_BTD)
        return self.down(constrain(h_BTF, "batch", "length", "mlp"))
