"""The KV cache of prompts and their samples, and attention of one new token over it."""

import dataclasses

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.cpu.products import weighted_sum
from models.cpu.reductions import row_max, row_sum
from models.layers.attention import MASK_VALUE

# So many queries on one key head, as with cached latents, are a matrix product when decoding.
MANY_QUERIES = 16


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
    """Float32 sums of values by weight; a matrix product where many queries share a key head."""
    if weights_PGKRC.shape[3] >= MANY_QUERIES:
        return jnp.einsum(
            "pgkrc,pgkch->pgkrh", weights_PGKRC.astype(v_PGKCH.dtype), v_PGKCH,
            preferred_element_type=jnp.float32,
        )  # fmt: skip
    return weighted_sum(weights_PGKRC, v_PGKCH)
