"""Causal attention over packed rows by JAX's splash attention kernel, for TPUs.

The kernel never stores the scores: memory grows with the length of a row, not with its square. It
skips the blocks that the causal mask hides.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding, PartitionSpec

from models.sharding import axis_names, partition_spec, shards_of

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

    Each device computes its own rows, heads and queries, as the sharding table splits them. Devices
    that share a row gather its keys and values.

    Args:
      interpret: run the kernel on a CPU, operation by operation, which is slow; for tests.
    """
    length, num_heads, head_dim = q_BTNH.shape[1:]
    shards = shards_of("length", length)
    size = block_size(length // shards)
    padding = -length % (size * shards)
    # The kernel does not divide the scores by the root of the head dimension.
    q_BTNH = (q_BTNH.astype(jnp.float32) * head_dim**-0.5).astype(q_BTNH.dtype)
    q_BTNH, k_BTKH, v_BTKH, segment_ids_BT = (
        jnp.pad(x, ((0, 0), (0, padding), *[(0, 0)] * (x.ndim - 2)))
        for x in (q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    )
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        kernel = _kernel(length + padding, num_heads, size, 1, interpret)
        return _of_device(kernel, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segment_ids_BT)[
            :, :length
        ]
    # The padded length may divide over the devices where the row's own does not.
    along = "length" if shards > 1 else None
    queries = partition_spec(("batch", along, "heads", None), q_BTNH.shape, mesh)
    keys = partition_spec(("batch", None, "kv_heads", None), k_BTKH.shape, mesh)
    if queries[2] != keys[2]:
        # The key heads do not divide over the devices that share the query heads. With a copy of a
        # key head for each of its query heads, they do.
        copies = q_BTNH.shape[2] // k_BTKH.shape[2]
        k_BTKH, v_BTKH = (jnp.repeat(x, copies, axis=2) for x in (k_BTKH, v_BTKH))
        keys = queries
    heads_here = num_heads // _devices(mesh, queries[2])
    kernel = _kernel(length + padding, heads_here, size, shards, interpret)
    rows = NamedSharding(mesh, PartitionSpec(None, queries[1]))
    out_BTNH = jax.shard_map(
        _of_device,
        in_specs=(
            kernel.manual_sharding_spec(rows), queries, keys, keys,
            PartitionSpec(queries[0], queries[1]), PartitionSpec(queries[0], None),
        ),
        out_specs=queries,
        check_vma=False,  # The kernel does not say over which axes its result varies.
    )(kernel, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segment_ids_BT)  # fmt: skip
    return out_BTNH[:, :length]


def block_size(length: int) -> int:
    """Returns the largest block whose padding adds at most an eighth to a row; else the least."""
    for size in BLOCKS:
        if -length % size <= length // 8:
            return size
    return BLOCKS[-1]


def _devices(mesh, axes):
    return math.prod(mesh.shape[axis] for axis in axis_names(axes))


def _kernel(length, num_heads, size, shards, interpret):
    """Returns the kernel for queries that are split over so many devices."""
    computed = min(size, COMPUTED_AT_A_TIME)
    return splash.make_splash_mha(
        splash.MultiHeadMask([splash.CausalMask((length, length))] * num_heads),
        block_sizes=splash.BlockSizes(
            block_q=size, block_kv=size, block_kv_compute=computed,
            block_q_dkv=size, block_kv_dkv=size, block_kv_dkv_compute=computed,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=shards,
        interpret=interpret,
    )  # fmt: skip


def _of_device(kernel, q_BTNH, k_BSKH, v_BSKH, queries_BT, keys_BS):
    q_BNTH, k_BKSH, v_BKSH = (x.swapaxes(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
    of_row = jax.vmap(kernel)
    return of_row(q_BNTH, k_BKSH, v_BKSH, splash.SegmentIds(queries_BT, keys_BS)).swapaxes(1, 2)
