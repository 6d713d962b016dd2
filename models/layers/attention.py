"""Causal attention over packed rows, as in training and when a prompt is read."""

import jax
import jax.numpy as jnp

from models.cpu.products import head_major_attention
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
            q_BQNH, k_BTKH, v_BTKH, mask_BQT, cpu=_cpu_attention, default=_library_attention
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


def _cpu_attention(q_BQNH, k_BTKH, v_BTKH, mask_BQT):
    return head_major_attention(q_BQNH, k_BTKH, v_BTKH, jnp.where(mask_BQT, 0.0, MASK_VALUE))
