"""The KV cache of prompts and their samples, and the attention of one new token over it.

`models.layers.attention` has the attention without a cache; `models.decoding.cached` runs the
decoder over this cache.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.cpu.products import float32_product, weighted_sum
from models.cpu.reductions import row_max, row_sum
from models.layers.attention import MASK_VALUE
from models.layers.int8 import rounded
from models.sharding import mesh_platform

# With at least this many query heads per key head, as latent attention has, decoding computes
# scores as a matrix product.
MANY_QUERIES = 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class KVCache:
    """Keys and values of P prompts and of G samples for each prompt.

    All samples of a prompt share its keys and values, which are stored once. Keys are stored
    transposed (H before the columns): the scores of a query against all columns are then one
    contiguous multiply-add, on CPU about 1.5 times faster than in the other layouts.

    `ModelConfig.cached` gives K and the two H; the H of values may differ from that of keys.

    With `ModelConfig.int8_cache`, keys and values are int8, and each head of each token has a
    factor for its key and one for its value: about half the memory and traffic of bfloat16.

    Attributes:
      prefix_k: `[L, P, K, H, S]`, prefix_v: `[L, P, K, S, H]`, of the prompts; S may be 0.
      suffix_k: `[L, P, G, K, H, W]`, suffix_v: `[L, P, G, K, W, H]`, of the generated tokens.
      prefix_valid: `[P, S]` bool, suffix_valid: `[P, G, W]` bool, whether a column holds a token.
      factors: of int8 keys and values; None if they are exact.
    """

    prefix_k: jax.Array
    prefix_v: jax.Array
    suffix_k: jax.Array
    suffix_v: jax.Array
    prefix_valid: jax.Array
    suffix_valid: jax.Array
    factors: "CacheFactors | None" = None

    @classmethod
    def zeros(
        cls, config: ModelConfig, prompts: int, group: int, prefix: int, suffix: int
    ) -> "KVCache":
        """Returns an empty cache with P = `prompts`, G = `group`, S = `prefix`, W = `suffix`."""
        kv_heads, key_dim, value_dim = config.cached
        heads = (config.num_layers, prompts, kv_heads)
        rows = (config.num_layers, prompts, group, kv_heads)
        dtype = jnp.dtype(jnp.int8 if config.int8_cache else config.dtype)
        return cls(
            prefix_k=jnp.zeros((*heads, key_dim, prefix), dtype),
            prefix_v=jnp.zeros((*heads, prefix, value_dim), dtype),
            suffix_k=jnp.zeros((*rows, key_dim, suffix), dtype),
            suffix_v=jnp.zeros((*rows, suffix, value_dim), dtype),
            prefix_valid=jnp.zeros((prompts, prefix), bool),
            suffix_valid=jnp.zeros((prompts, group, suffix), bool),
            factors=CacheFactors.zeros(heads, rows, prefix, suffix) if config.int8_cache else None,
        )

    def with_prompts(
        self, layer: jax.Array | int, slots: jax.Array, k_ASKH: jax.Array, v_ASKH: jax.Array
    ) -> "KVCache":
        """Returns the cache with the keys and values of one layer for the prompts in `slots [A]`.

        A prompt with slot P is dropped.
        """
        k, v, factors = k_ASKH, v_ASKH, self.factors
        if factors is not None:
            (k, of_k), (v, of_v) = rounded(k, -1), rounded(v, -1)

            def put(x, new_ASK):
                return x.at[layer, slots].set(new_ASK.transpose(0, 2, 1), mode="drop")

            factors = dataclasses.replace(
                factors, prefix_k=put(factors.prefix_k, of_k), prefix_v=put(factors.prefix_v, of_v)
            )
        return dataclasses.replace(
            self,
            prefix_k=self.prefix_k.at[layer, slots].set(k.transpose(0, 2, 3, 1), mode="drop"),
            prefix_v=self.prefix_v.at[layer, slots].set(v.transpose(0, 2, 1, 3), mode="drop"),
            factors=factors,
        )

    def with_column(
        self, layer: jax.Array | int, column: jax.Array, k_PGKH: jax.Array, v_PGKH: jax.Array
    ) -> "KVCache":
        """Returns the cache with one more token of every sample, of one layer, in a column."""
        k, v, factors = k_PGKH, v_PGKH, self.factors
        put = jax.lax.dynamic_update_slice
        if factors is not None:
            (k, of_k), (v, of_v) = rounded(k, -1), rounded(v, -1)
            place = (layer, 0, 0, 0, column)
            factors = dataclasses.replace(
                factors,
                suffix_k=put(factors.suffix_k, of_k[None, ..., None], place),
                suffix_v=put(factors.suffix_v, of_v[None, ..., None], place),
            )
        return dataclasses.replace(
            self,
            suffix_k=put(self.suffix_k, k[None, ..., None], (layer, 0, 0, 0, 0, column)),
            suffix_v=put(self.suffix_v, v[None, ..., None, :], (layer, 0, 0, 0, column, 0)),
            factors=factors,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class CacheFactors:
    """What int8 keys and values are multiplied by, float32.

    Attributes:
      prefix_k, prefix_v: `[L, P, K, S]`.
      suffix_k, suffix_v: `[L, P, G, K, W]`.
    """

    prefix_k: jax.Array
    prefix_v: jax.Array
    suffix_k: jax.Array
    suffix_v: jax.Array

    @classmethod
    def zeros(
        cls, heads: tuple[int, ...], rows: tuple[int, ...], prefix: int, suffix: int
    ) -> "CacheFactors":
        """Returns factors of empty columns; `heads` is `(L, P, K)`, `rows` is `(L, P, G, K)`."""
        columns = {"prefix": (*heads, prefix), "suffix": (*rows, suffix)}
        return cls(
            **{f"{part}_{of}": jnp.zeros(columns[part]) for part in columns for of in ("k", "v")}
        )


def decode_attention(
    q_PGNH: jax.Array,
    cache: KVCache,
    layer: jax.Array | int,
    live: tuple[jax.Array | int, jax.Array] | None = None,
) -> jax.Array:
    """Attends from one query per sample to the sample's prompt and to its own generated tokens.

    The function reads the generated columns block by block with a running softmax
    (arXiv:1805.02867), so blocks without tokens cost nothing. It computes each part as a
    multiply-and-reduce, which XLA fuses with the read of one layer, so XLA never copies a layer.
    Two cases are a matrix product instead: the prompt part if several samples share the prompt, and
    every part if many query heads share a key head.

    Args:
      q_PGNH: one query per sample.
      layer: index of the layer to read.
      live: (first block, number of blocks) that hold tokens, counted round the circular columns;
        see `live_blocks`. By default the function reads all blocks.

    Returns:
      `[P, G, N, H]`, with the H of the values and the dtype of the queries.
    """
    prompts, group, num_heads, head_dim = q_PGNH.shape
    num_kv_heads = cache.prefix_k.shape[2]
    q_PGKQH = q_PGNH.reshape(prompts, group, num_kv_heads, num_heads // num_kv_heads, head_dim)

    def of_layer(stacked):
        return jax.lax.dynamic_index_in_dim(stacked, layer, 0, keepdims=False)

    factors = cache.factors
    if cache.prefix_k.shape[-1]:
        state = _attend_prompts(q_PGKQH, cache, of_layer)
    else:  # A server's cache has no columns for prompts: each sample has its prompt in its own.
        state = nothing_read(q_PGKQH.shape[:-1], cache.suffix_v.shape[-1])

    columns = cache.suffix_k.shape[-1]
    size, blocks = column_blocks(columns)

    def add_block(number, state):
        first = number * size
        # The last block may overlap the block before it; the mask hides the columns that were read.
        start = jnp.minimum(first, columns - size)
        k = jax.lax.dynamic_slice_in_dim(of_layer(cache.suffix_k), start, size, -1)
        v = jax.lax.dynamic_slice_in_dim(of_layer(cache.suffix_v), start, size, -2)
        valid_PGC = jax.lax.dynamic_slice_in_dim(cache.suffix_valid, start, size, -1)
        valid_PGC &= start + jnp.arange(size) >= first
        scores_PGKQC = _scores(q_PGKQH, k) * head_dim**-0.5
        of_v = None
        if factors is not None:
            of_k, of_v = (
                jax.lax.dynamic_slice_in_dim(of_layer(x), start, size, -1)[:, :, :, None]
                for x in (factors.suffix_k, factors.suffix_v)
            )
            scores_PGKQC *= of_k
        scores_PGKQC = jnp.where(valid_PGC[:, :, None, None], scores_PGKQC, MASK_VALUE)

        def of_block(weights_PGKQC):
            weights_PGKQC = weights_PGKQC if of_v is None else weights_PGKQC * of_v
            return _weighted_sum(weights_PGKQC, v, q_PGNH.dtype)

        return running_softmax(state, scores_PGKQC, of_block)

    if blocks == 1:
        state = add_block(0, state)
    else:
        first, count = (0, blocks) if live is None else live
        state = jax.lax.fori_loop(
            0, count, lambda i, state: add_block((first + i) % blocks, state), state
        )
    _, total_PGKQ, out_PGKQH = state
    out_PGKQH = (out_PGKQH / total_PGKQ[..., None]).astype(q_PGNH.dtype)
    return out_PGKQH.reshape(prompts, group, num_heads, -1)


def _attend_prompts(q_PGKQH, cache, of_layer):
    """Returns the state of `running_softmax` after the columns of the prompts."""
    group, head_dim = q_PGKQH.shape[1], q_PGKQH.shape[-1]
    if group > 1:
        prefix_PGKQS = float32_product("pgkqh,pkhs->pgkqs", q_PGKQH, of_layer(cache.prefix_k))
    else:
        prefix_PGKQS = _scores(q_PGKQH, of_layer(cache.prefix_k)[:, None])
    prefix_PGKQS *= head_dim**-0.5
    factors = cache.factors
    if factors is not None:
        prefix_PGKQS *= of_layer(factors.prefix_k)[:, None, :, None]
    prefix_PGKQS = jnp.where(cache.prefix_valid[:, None, None, None], prefix_PGKQS, MASK_VALUE)

    def of_prompt(weights_PGKQS):
        if factors is not None:
            weights_PGKQS = weights_PGKQS * of_layer(factors.prefix_v)[:, None, :, None]
        if group > 1:
            weights_PGKQS = weights_PGKQS.astype(q_PGKQH.dtype)
            return float32_product("pgkqs,pksh->pgkqh", weights_PGKQS, of_layer(cache.prefix_v))
        values = of_layer(cache.prefix_v)[:, None]
        return _weighted_sum(weights_PGKQS, values, q_PGKQH.dtype)

    return running_softmax(None, prefix_PGKQS, of_prompt)


def running_softmax(
    state: tuple[jax.Array, jax.Array, jax.Array] | None,
    scores: jax.Array,
    weighted_sum: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adds one more part of the columns to an attention (arXiv:1805.02867).

    Args:
      state: what the call for the previous part returned; None for the first part.
      scores: float32 `[..., columns]` of this part.
      weighted_sum: maps weights, shaped like the scores, to this part's weighted sum of values
        `[..., H]`.

    Returns:
      The largest score so far `[...]`, the sum of weights `[...]` and the weighted sum of values
      `[..., H]`, all float32. The attention's output is the last divided by the second.
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


def nothing_read(shape: tuple[int, ...], value_dim: int) -> tuple[jax.Array, ...]:
    """Returns the state of `running_softmax` before the first part.

    Args:
      shape: the shape of the scores, without their columns.
      value_dim: H of the values.
    """
    zeros = jnp.zeros(shape, jnp.float32)
    return zeros + MASK_VALUE, zeros, jnp.zeros((*shape, value_dim), jnp.float32)


def live_blocks(
    columns: int, oldest: jax.Array | int, newest: jax.Array | int
) -> tuple[jax.Array | int, jax.Array]:
    """Finds the blocks of a circular cache that hold the columns `oldest` to `newest`.

    Args:
      columns: W, columns of the cache.
      oldest, newest: values of a counter; the column is the counter modulo `columns`.

    Returns:
      (first block, number of blocks), as `decode_attention` takes them.
    """
    size, blocks = column_blocks(columns)
    oldest, newest = oldest % columns, newest % columns
    first, last = oldest // size, newest // size
    count = last - first + 1 + jnp.where(oldest > newest, blocks, 0)
    return first, jnp.minimum(count, blocks)


def column_blocks(columns: int) -> tuple[int, int]:
    """Returns (columns per block, number of blocks) for a cache with `columns` columns."""
    # Blocks are larger on accelerators, where every kernel costs a launch.
    size = min(columns, 32 if mesh_platform() == "cpu" else 512)
    return size, -(-columns // size)


def _scores(q_PGKQH, k_PGKHC):
    """Returns the float32 product `[P, G, K, Q, C]` of each query with each key of a block."""
    if q_PGKQH.shape[3] >= MANY_QUERIES:
        return float32_product("pgkqh,pgkhc->pgkqc", q_PGKQH, k_PGKHC)
    return jnp.sum(q_PGKQH[..., None].astype(jnp.float32) * k_PGKHC[:, :, :, None], -2)


def _weighted_sum(weights_PGKQC, v_PGKCH, dtype):
    """Returns float32 weighted sums of values; a matrix product if many queries share a key."""
    if weights_PGKQC.shape[3] >= MANY_QUERIES:
        weights_PGKQC = weights_PGKQC.astype(dtype)
        return float32_product("pgkqc,pgkch->pgkqh", weights_PGKQC, v_PGKCH)
    return weighted_sum(weights_PGKQC, v_PGKCH)
