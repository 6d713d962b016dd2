"""Causal attention over packed rows, as in training and when a prompt is read."""

import jax
import jax.numpy as jnp

from models.cpu.reductions import row_max
from models.sharding import constrain

# Large and finite: a fully masked row then softmaxes to uniform weights instead of NaN.
MASK_VALUE = -1e30
# Float32 attention scores that one device holds at a time in training: 2**27 are 512 MiB.
MAX_SCORES = 2**27


def packed_attention(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array
) -> jax.Array:
    """Causal attention within each packed segment; never across. Returns `[B, T, N, H]`.

    The values' H, and so that of the result, may differ from that of queries and keys. Segment id 0
    is padding: nothing else attends to it, and what it attends to means nothing.
    """
    batch, length, num_heads, _ = q_BTNH.shape
    columns = jnp.arange(length)

    def of_queries(q_BQNH, segments_BQ, rows_Q):
        same = segments_BQ[:, :, None] == segment_ids_BT[:, None, :]
        mask_BQT = same & (rows_Q[:, None] >= columns)
        # By the platform that is compiled for, which need not be the one at hand.
        return jax.lax.platform_dependent(
            q_BQNH, k_BTKH, v_BTKH, mask_BQT, cpu=_head_major_attention, default=_library_attention
        )

    devices = max(jax.sharding.get_abstract_mesh().size, 1)
    blocks = -(-batch * num_heads * length**2 // (MAX_SCORES * devices))
    if blocks <= 1:
        return of_queries(q_BTNH, segment_ids_BT, columns)
    # The scores of all queries would not fit: those of a block at a time, made again in the
    # backward pass. Their number grows with the length then, not with its square.
    size = -(-length // blocks)

    def split(x, *axes):
        x = jnp.pad(x, ((0, 0), (0, blocks * size - length), *[(0, 0)] * (x.ndim - 2)))
        x = x.reshape(batch, blocks, size, *x.shape[2:]).swapaxes(0, 1)
        return constrain(x, None, "batch", "length", *axes)

    queries = (
        split(q_BTNH, "heads", "head_dim"),
        split(segment_ids_BT),
        jnp.arange(blocks * size).reshape(blocks, size),
    )
    out = jax.lax.map(jax.checkpoint(lambda parts: of_queries(*parts)), queries)
    return out.swapaxes(0, 1).reshape(batch, blocks * size, num_heads, -1)[:, :length]


def _library_attention(q_BQNH, k_BTKH, v_BTKH, mask_BQT):
    value_dim, missing = v_BTKH.shape[-1], k_BTKH.shape[-1] - v_BTKH.shape[-1]
    if missing:  # The library knows one head dimension.
        v_BTKH = jnp.pad(v_BTKH, [(0, 0)] * 3 + [(0, missing)])
    out = jax.nn.dot_product_attention(q_BQNH, k_BTKH, v_BTKH, mask=mask_BQT[:, None])
    return out[..., :value_dim]


def _head_major_attention(q_BQNH, k_BTKH, v_BTKH, mask_BQT):
    """Attention as one plain matrix product per key head, its query heads stacked as rows.

    Forward and backward run about 1.6 times faster on CPU than the library's, whose products
    there keep the head axis in the middle.
    """
    batch, rows, num_heads, head_dim = q_BQNH.shape
    length, kv_heads = k_BTKH.shape[1:3]
    queries = num_heads // kv_heads
    bias_BQT = jnp.where(mask_BQT, 0.0, MASK_VALUE)
    q = q_BQNH.reshape(batch, rows, kv_heads, queries, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch * kv_heads, queries * rows, head_dim)
    k = k_BTKH.transpose(0, 2, 3, 1).reshape(batch * kv_heads, head_dim, length)
    v = v_BTKH.transpose(0, 2, 1, 3).reshape(batch * kv_heads, length, -1)
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32) * head_dim**-0.5
    scores = scores.reshape(batch, kv_heads, queries, rows, length) + bias_BQT[:, None, None]
    # The weights' sum is one more column of their product with the values, also going backward.
    peak = jax.lax.stop_gradient(row_max(scores))[..., None]
    weights = jnp.exp(scores - peak).astype(v.dtype)
    v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1), v.dtype)], -1)
    weights = weights.reshape(batch * kv_heads, queries * rows, length)
    out = jnp.matmul(weights, v, preferred_element_type=jnp.float32)
    out = (out[..., :-1] / out[..., -1:]).astype(v.dtype)
    out = out.reshape(batch, kv_heads, queries, rows, -1).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, rows, num_heads, -1)
