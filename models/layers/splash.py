"""Causal attention over packed rows by JAX's splash attention kernel, for TPUs.

The kernel never stores the scores: memory grows with the length of a row, not with its square. It
skips the blocks that the causal mask hides.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec

from models.sharding import partition_spec

# Sides of the squares of scores that the kernel computes at a time. Larger ones run faster; the
# kernel takes only whole ones, so a row is padded to a multiple.
BLOCKS = (1024, 512, 256, 128)
# Most keys that go through one matrix product within a block.
COMPUTED_AT_A_TIME = 512


def splash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Attends causally within each packed segment; see `attention.packed_attention`.

    Each device computes its own rows and heads, as the sharding table splits them.

    Args:
      interpret: run the kernel on a CPU, operation by operation, which is slow; for tests.
    """
    of_device = functools.partial(_of_device, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return of_device(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    queries = partition_spec(("batch", None, "heads", None), q_BTNH.shape, mesh)
    keys = partition_spec(("batch", None, "kv_heads", None), k_BTKH.shape, mesh)
    if queries[2] != keys[2]:
        # The key heads do not divide over the devices that share the query heads. With a copy of a
        # key head for each of its query heads, they do.
        copies = q_BTNH.shape[2] // k_BTKH.shape[2]
        k_BTKH, v_BTKH = (jnp.repeat(x, copies, axis=2) for x in (k_BTKH, v_BTKH))
        keys = queries
    return jax.shard_map(
        of_device,
        in_specs=(queries, keys, keys, PartitionSpec(queries[0], None)),
        out_specs=queries,
        check_vma=False,  # The kernel does not say over which axes its result varies.
    )(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def block_size(length: int) -> int:
    """Returns the largest block whose padding adds at most an eighth to a row; else the least."""
    for size in BLOCKS:
        if -length % size <= length // 8:
            return size
    return BLOCKS[-1]


def _of_device(interpret, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT):
    length, num_heads, head_dim = q_BTNH.shape[1:]
    size = block_size(length)
    padding = -length % size
    # The kernel does not divide the scores by the root of the head dimension.
    q_BTNH = (q_BTNH.astype(jnp.float32) * head_dim**-0.5).astype(q_BTNH.dtype)

    def heads_first(x_BTNH):
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return x_BTNH.swapaxes(1, 2)

    computed = min(size, COMPUTED_AT_A_TIME)
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.CausalMask((length + padding,) * 2)] * num_heads),
        block_sizes=splash.BlockSizes(
            block_q=size, block_kv=size, block_kv_compute=computed,
            block_q_dkv=size, block_kv_dkv=size, block_kv_dkv_compute=computed,
            use_fused_bwd_kernel=True,
        ),
        interpret=interpret,
    )  # fmt: skip
    segments_BT = jnp.pad(segment_ids_BT, ((0, 0), (0, padding)))
    out_BNTH = jax.vmap(kernel)(
        heads_first(q_BTNH),
        heads_first(k_BTKH),
        heads_first(v_BTKH),
        splash.SegmentIds(segments_BT, segments_BT),
    )
    return out_BNTH.swapaxes(1, 2)[:, :length]
