"""Rotary positions, packed causal attention, and attention over the sampler's KV cache."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig, YarnScaling
from models.cpu.reductions import row_max, row_sum
from models.sharding import constrain

# Large and finite: a fully masked row then softmaxes to uniform weights instead of NaN.
MASK_VALUE = -1e30
# Float32 attention scores that one device holds at a time in training: 2**27 are 512 MiB.
MAX_SCORES = 2**27
# So many queries on one key head, as with cached latents, are a matrix product when decoding.
MANY_QUERIES = 16


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class KVCache:
    """Keys and values of P prompts with G samples each; a prompt's are stored once, for all G.

    Keys are stored transposed (`H` before columns): the score of a query against every column
    is then a contiguous multiply-add, on CPU about 1.5 times faster than the other layouts.

    Heads and head dimensions are `ModelConfig.cached`; the values' H may differ from the keys'.

    Attributes:
      prefix_k: `[L, P, K, H, S]`, prefix_v: `[L, P, K, S, H]`, the prompts.
      suffix_k: `[L, P, G, K, H, W]`, suffix_v: `[L, P, G, K, W, H]`, what each sample generated.
      prefix_valid: `[P, S]` bool, suffix_valid: `[P, G, W]` bool, the columns that hold tokens.
    """

    prefix_k: jax.Array
    prefix_v: jax.Array
    suffix_k: jax.Array
    suffix_v: jax.Array
    prefix_valid: jax.Array
    suffix_valid: jax.Array

    @classmethod
    def zeros(
        cls, config: ModelConfig, prompts: int, group: int, prefix: int, suffix: int
    ) -> "KVCache":
        kv_heads, key_dim, value_dim = config.cached
        heads = (config.num_layers, prompts, kv_heads)
        rows = (config.num_layers, prompts, group, kv_heads)
        dtype = jnp.dtype(config.dtype)
        return cls(
            prefix_k=jnp.zeros((*heads, key_dim, prefix), dtype),
            prefix_v=jnp.zeros((*heads, prefix, value_dim), dtype),
            suffix_k=jnp.zeros((*rows, key_dim, suffix), dtype),
            suffix_v=jnp.zeros((*rows, suffix, value_dim), dtype),
            prefix_valid=jnp.zeros((prompts, prefix), bool),
            suffix_valid=jnp.zeros((prompts, group, suffix), bool),
        )


def decode_attention(
    q_PGNH: jax.Array,
    cache: KVCache,
    layer: jax.Array | int,
    live: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """One query per sample against its prompt and its own generated columns: `[P, G, N, H]`.

    Generated columns are read block by block with a running softmax (arXiv:1805.02867), so that
    blocks without tokens cost nothing. Each part is a multiply-and-reduce, which XLA fuses with
    the read of one layer, so no layer is ever copied; only where several samples share a prompt, or
    many query heads a key head, is that part a matrix product.

    Args:
      live: first block and number of blocks that hold tokens, counted round the circular columns;
        see `live_blocks`. All blocks by default.
    """
    prompts, group, num_heads, head_dim = q_PGNH.shape
    num_kv_heads = cache.prefix_k.shape[2]
    # N = K * R, R query heads for each key head.
    q_PGKRH = q_PGNH.reshape(prompts, group, num_kv_heads, num_heads // num_kv_heads, head_dim)

    def of_layer(stacked):
        return jax.lax.dynamic_index_in_dim(stacked, layer, 0, keepdims=False)

    if group > 1:
        prefix_PGKRS = jnp.einsum(
            "pgkrh,pkhs->pgkrs",
            q_PGKRH,
            of_layer(cache.prefix_k),
            preferred_element_type=jnp.float32,
        )
    else:
        prefix_PGKRS = _scores(q_PGKRH, of_layer(cache.prefix_k)[:, None])
    prefix_PGKRS *= head_dim**-0.5
    prefix_PGKRS = jnp.where(cache.prefix_valid[:, None, None, None], prefix_PGKRS, MASK_VALUE)

    def of_prompt(weights_PGKRS):
        if group > 1:
            return jnp.einsum(
                "pgkrs,pksh->pgkrh",
                weights_PGKRS.astype(q_PGNH.dtype),
                of_layer(cache.prefix_v),
                preferred_element_type=jnp.float32,
            )
        return _weighted_sum(weights_PGKRS, of_layer(cache.prefix_v)[:, None])

    state = running_softmax(None, prefix_PGKRS, of_prompt)

    columns = cache.suffix_k.shape[-1]
    size, blocks = column_blocks(columns)

    def add_block(number, state):
        first = number * size
        # The last block may overlap the one before it; what that one has read is masked.
        start = jnp.minimum(first, columns - size)
        k = jax.lax.dynamic_slice_in_dim(of_layer(cache.suffix_k), start, size, -1)
        v = jax.lax.dynamic_slice_in_dim(of_layer(cache.suffix_v), start, size, -2)
        valid_PGC = jax.lax.dynamic_slice_in_dim(cache.suffix_valid, start, size, -1)
        valid_PGC &= start + jnp.arange(size) >= first
        scores_PGKRC = _scores(q_PGKRH, k) * head_dim**-0.5
        scores_PGKRC = jnp.where(valid_PGC[:, :, None, None], scores_PGKRC, MASK_VALUE)
        return running_softmax(state, scores_PGKRC, lambda weights: _weighted_sum(weights, v))

    if blocks == 1:
        state = add_block(0, state)
    else:
        first, count = (0, blocks) if live is None else live
        state = jax.lax.fori_loop(
            0, count, lambda i, state: add_block((first + i) % blocks, state), state
        )
    _, total_PGKR, out_PGKRH = state
    out_PGKRH = (out_PGKRH / total_PGKR[..., None]).astype(q_PGNH.dtype)
    return out_PGKRH.reshape(prompts, group, num_heads, -1)


def running_softmax(state, scores, weighted_sum):
    """Attention over one more part of the columns (arXiv:1805.02867).

    Args:
      state: that of the parts before: the largest score and the sum of weights `[...]`, and the sum
        of values by weight `[..., H]`, all float32; None before the first part.
      scores: `[..., columns]`, float32.
      weighted_sum: from weights, shaped as the scores, to the sum of values `[..., H]`.
    """
    peak = row_max(scores)
    if state is not None:
        peak = jnp.maximum(state[0], peak)
    weights = jnp.exp(scores - peak[..., None])
    total, out = row_sum(weights), weighted_sum(weights)
    if state is not None:
        shrink = jnp.exp(state[0] - peak)
        total, out = state[1] * shrink + total, state[2] * shrink[..., None] + out
    return peak, total, out


def live_blocks(columns: int, oldest: jax.Array, newest: jax.Array):
    """The blocks that hold columns `oldest` to `newest` of a counter modulo `columns`.

    Returns:
      (first block, number of blocks); see `decode_attention`.
    """
    size, blocks = column_blocks(columns)
    oldest, newest = oldest % columns, newest % columns
    first, last = oldest // size, newest // size
    count = last - first + 1 + jnp.where(oldest > newest, blocks, 0)
    return first, jnp.minimum(count, blocks)


def column_blocks(columns: int) -> tuple[int, int]:
    """Columns per block and number of blocks; on accelerators, where a kernel costs its launch,
    blocks are larger."""
    size = min(columns, 32 if jax.default_backend() == "cpu" else 512)
    return size, -(-columns // size)


def _scores(q_PGKRH, k_PGKHC):
    """Float32 products of each query with each key, as one multiply-and-reduce."""
    if q_PGKRH.shape[3] >= MANY_QUERIES:
        return jnp.einsum(
            "pgkrh,pgkhc->pgkrc", q_PGKRH, k_PGKHC, preferred_element_type=jnp.float32
        )
    return jnp.sum(q_PGKRH[..., None].astype(jnp.float32) * k_PGKHC[:, :, :, None], -2)


def _weighted_sum(weights_PGKRC, v_PGKCH):
    """Sum of values by weight, 32 columns at a time: XLA's CPU backend writes out longer products
    before it sums them."""
    if weights_PGKRC.shape[3] >= MANY_QUERIES:
        return jnp.einsum(
            "pgkrc,pgkch->pgkrh", weights_PGKRC.astype(v_PGKCH.dtype), v_PGKCH,
            preferred_element_type=jnp.float32,
        )  # fmt: skip
    columns = weights_PGKRC.shape[-1]
    size = 32 if jax.default_backend() == "cpu" else columns
    return sum(
        jnp.sum(weights_PGKRC[..., i : i + size, None] * v_PGKCH[:, :, :, None, i : i + size], -2)
        for i in range(0, columns, size)
    )
