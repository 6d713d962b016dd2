"""Causal attention over packed rows, which training and the reading of prompts use.

On TPUs it is `models.layers.splash`; elsewhere it is a product of queries and keys, in blocks.
`models.layers.kv_cache` has the attention of one new token over a cache.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.cpu.products import head_major_attention
from models.layers.splash import splash_attention
from models.sharding import constrain, mesh_platform, shards_of

# How a block attends: (q_BTNH, k_BTKH, v_BTKH, cache, layer index) -> (output_BTNH, cache).
Attend = Callable[..., tuple[jax.Array, Any]]

# Large and finite, so that the softmax of a fully masked row gives uniform weights instead of NaN.
MASK_VALUE = -1e30
# Most float32 attention scores that one device holds at a time in training; 2**27 are 512 MiB.
MAX_SCORES = 2**27


def packed_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    prefix_ids_BT: jax.Array | None = None,
) -> jax.Array:
    """Attends causally within each packed segment, and to its prefix if it has one.

    The mesh of `jax.set_mesh` says for which platform the program is, and so which kernel is right.
    The process's own platform does not count: a program may be compiled for another.

    Args:
      q_BTNH, k_BTKH: queries and keys.
      v_BTKH: values; their H may differ from that of queries and keys.
      segment_ids_BT: segment of each token. Id 0 marks padding: no other segment attends to it, and
        its own output has no meaning.
      prefix_ids_BT: another segment that each token sees, too, which several segments may share;
        the token's own segment if there is none. None means that no token has one.

    Returns:
      `[B, T, N, H]`, with the H of the values.

    Raises:
      ValueError: there are prefixes, and the program is for TPUs, whose kernel has none.
    """
    if mesh_platform() == "tpu":
        if prefix_ids_BT is not None:
            raise ValueError(
                "attention on TPUs compares segments alone and has no shared prefixes: set"
                " share_prompts=False"
            )
        return splash_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    return product_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, prefix_ids_BT)


def product_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    prefix_ids_BT: jax.Array | None = None,
) -> jax.Array:
    """Attends as `packed_attention` does, by matrix products that hold a block of the scores."""
    batch, length, num_heads, _ = q_BTNH.shape
    if shards_of("length", length) > 1:  # Every device needs the keys and values of whole rows.
        k_BTKH, v_BTKH = (constrain(x, "batch", None, "kv_heads", None) for x in (k_BTKH, v_BTKH))
    columns = jnp.arange(length)
    # The segments that each query sees: its own, and its prefix if there are any.
    seen = [segment_ids_BT] if prefix_ids_BT is None else [segment_ids_BT, prefix_ids_BT]

    def of_queries(block_BTNH, seen, rows_T):
        """Returns the output of some queries, which are in rows `rows_T`, over all keys."""
        visible = [ids_BT[:, :, None] == segment_ids_BT[:, None, :] for ids_BT in seen]
        mask_BTS = functools.reduce(operator.or_, visible) & (rows_T[:, None] >= columns)
        # JAX chooses by the platform that it compiles for, which may not be the default one.
        return jax.lax.platform_dependent(
            block_BTNH, k_BTKH, v_BTKH, mask_BTS, cpu=_cpu_attention, default=_library_attention
        )

    devices = max(jax.sharding.get_abstract_mesh().size, 1)
    blocks = -(-batch * num_heads * length**2 // (MAX_SCORES * devices))
    if blocks <= 1:
        return of_queries(q_BTNH, seen, columns)
    # The scores of all queries would not fit. So only those of one block of queries exist at a
    # time, and the backward pass computes them again. Memory then grows with the length, not with
    # its square.
    size = -(-length // blocks)

    def split(x, *axes):
        x = jnp.pad(x, ((0, 0), (0, blocks * size - length), *[(0, 0)] * (x.ndim - 2)))
        x = x.reshape(batch, blocks, size, *x.shape[2:]).swapaxes(0, 1)
        return constrain(x, None, "batch", "length", *axes)

    queries = (
        split(q_BTNH, "heads", "head_dim"),
        [split(ids) for ids in seen],
        jnp.arange(blocks * size).reshape(blocks, size),
    )
    out = jax.lax.map(jax.checkpoint(lambda parts: of_queries(*parts)), queries)
    return out.swapaxes(0, 1).reshape(batch, blocks * size, num_heads, -1)[:, :length]


def _library_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
    value_dim, missing = v_BSKH.shape[-1], k_BSKH.shape[-1] - v_BSKH.shape[-1]
    if missing:  # JAX's attention wants one head dimension for keys and values.
        v_BSKH = jnp.pad(v_BSKH, [(0, 0)] * 3 + [(0, missing)])
    out = jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, mask=mask_BTS[:, None])
    return out[..., :value_dim]


def _cpu_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
    return head_major_attention(q_BTNH, k_BSKH, v_BSKH, jnp.where(mask_BTS, 0.0, MASK_VALUE))
