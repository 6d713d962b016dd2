"""Matrix products of attention in the layouts that XLA's CPU backend computes fast.

`models.layers`, `models.decoding` and `models.paths` use them.
"""

import jax
import jax.numpy as jnp

from models.cpu.reductions import row_max
from models.sharding import mesh_platform

# How many columns `weighted_sum` adds up at a time on a CPU.
COLUMNS = 32


def head_major_attention(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, bias_BTS: jax.Array
) -> jax.Array:
    """Attends with one plain matrix product per key head, whose query heads are stacked as rows.

    On a CPU, forward and backward pass are about 1.6 times as fast as those of JAX's attention,
    which keeps the head axis in the middle of its products.

    Args:
      bias_BTS: float32, added to the scores of all heads; hides keys with large negative numbers.

    Returns:
      `[B, T, N, H]`, with the H and the dtype of the values.
    """
    batch, rows, num_heads, head_dim = q_BTNH.shape
    length, kv_heads = k_BSKH.shape[1:3]
    queries = num_heads // kv_heads
    q = q_BTNH.reshape(batch, rows, kv_heads, queries, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch * kv_heads, queries * rows, head_dim)
    k = k_BSKH.transpose(0, 2, 3, 1).reshape(batch * kv_heads, head_dim, length)
    v = v_BSKH.transpose(0, 2, 1, 3).reshape(batch * kv_heads, length, -1)
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32) * head_dim**-0.5
    scores = scores.reshape(batch, kv_heads, queries, rows, length) + bias_BTS[:, None, None]
    # A column of ones behind the values makes the product deliver the sum of the weights as well,
    # in the forward and in the backward pass.
    peak = jax.lax.stop_gradient(row_max(scores))[..., None]
    weights = jnp.exp(scores - peak).astype(v.dtype)
    v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1), v.dtype)], -1)
    weights = weights.reshape(batch * kv_heads, queries * rows, length)
    out = jnp.matmul(weights, v, preferred_element_type=jnp.float32)
    out = (out[..., :-1] / out[..., -1:]).astype(v.dtype)
    out = out.reshape(batch, kv_heads, queries, rows, -1).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, rows, num_heads, -1)


def float32_product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns `jnp.einsum(equation, x, y)`, added up and returned in float32.

    On a CPU the function converts narrower operands first: XLA's CPU backend has no product of
    bfloat16 matrices with a float32 result in some layouts (jaxlib 0.12 ends in `Unsupported
    element type for DotThunk`). Products of bfloat16 numbers are exact in float32, so that the
    conversion does not change the result.
    """
    if mesh_platform() == "cpu":
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def weighted_sum(weights_PGKQC: jax.Array, v_PGKCH: jax.Array) -> jax.Array:
    """Returns the weighted sums of values, float32 `[P, G, K, Q, H]`, by multiply-and-reduce.

    On a CPU the function takes 32 columns at a time, because XLA's CPU backend writes longer
    products out to memory before it sums them.
    """
    columns = weights_PGKQC.shape[-1]
    size = COLUMNS if mesh_platform() == "cpu" else columns
    return sum(  # pyright: ignore[reportReturnType]  (There is at least one part.)
        jnp.sum(weights_PGKQC[..., i : i + size, None] * v_PGKCH[:, :, :, None, i : i + size], -2)
        for i in range(0, columns, size)
    )
