"""Runs the decoder over slots whose sequences start and end at different times.

Column n of a slot holds the token at position n, prompt and sample alike. So the numbers that a
sequence gets do not depend on what is in the other slots, nor on when it started. The functions
here are pure; `models.decoding.slot_sampler` compiles them. `models.decoding.cached` is the same
for samples that share their prompt and the column that they write.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.cpu.products import float32_product
from models.decoder import Model
from models.layers.attention import MASK_VALUE
from models.layers.kv_cache import (
    KVCache,
    column_blocks,
    decode_attention,
    nothing_read,
    running_softmax,
)


def empty_slots(config: ModelConfig, slots: int, columns: int) -> KVCache:
    """Returns an empty cache of `slots` sequences of at most `columns` tokens."""
    return KVCache.zeros(config, slots, 1, 0, columns)


def read_chunk(
    model: Model,
    params: Any,
    cache: KVCache,
    tokens: jax.Array,
    start: jax.Array,
    slot: jax.Array,
) -> tuple[jax.Array, KVCache]:
    """Reads the next C tokens of one slot's prompt.

    The chunk attends to the earlier columns of the slot, block by block. A token that only fills up
    the last chunk is written, too: no query attends to its column before a real token replaces it.

    Args:
      params: what `model.for_loop` made.
      cache: the cache of all slots.
      tokens: int32 `[C]`.
      start: int32, position of the first token, a multiple of C.
      slot: int32, the slot.

    Returns:
      The hidden states `[C, D]` and the new cache.
    """
    size = tokens.shape[0]
    positions_T = start + jnp.arange(size)

    def attend(q_BTNH, k_BTKH, v_BTKH, cache, layer):
        k = k_BTKH.transpose(0, 2, 3, 1)[:, None, None]
        v = v_BTKH.transpose(0, 2, 1, 3)[:, None, None]
        cache = dataclasses.replace(
            cache,
            suffix_k=jax.lax.dynamic_update_slice(cache.suffix_k, k, (layer, slot, 0, 0, 0, start)),
            suffix_v=jax.lax.dynamic_update_slice(cache.suffix_v, v, (layer, slot, 0, 0, start, 0)),
        )
        _, _, num_heads, head_dim = q_BTNH.shape
        kv_heads = k_BTKH.shape[2]
        q_TKQH = q_BTNH.reshape(size, kv_heads, num_heads // kv_heads, head_dim)

        def add_block(number, state):
            first = number * size
            k_KHC = jax.lax.dynamic_slice(
                cache.suffix_k,
                (layer, slot, 0, 0, 0, first),
                (1, 1, 1, kv_heads, head_dim, size),
            )[0, 0, 0]
            v_KCH = jax.lax.dynamic_slice(
                cache.suffix_v,
                (layer, slot, 0, 0, first, 0),
                (1, 1, 1, kv_heads, size, v_BTKH.shape[-1]),
            )[0, 0, 0]
            scores = float32_product("tkqh,khc->kqtc", q_TKQH, k_KHC)
            past = first + jnp.arange(size) <= positions_T[:, None]
            scores = jnp.where(past, scores * head_dim**-0.5, MASK_VALUE)
            return running_softmax(
                state,
                scores,
                lambda weights: float32_product(
                    "kqtc,kch->kqth", weights.astype(q_BTNH.dtype), v_KCH
                ),
            )

        state = nothing_read((kv_heads, num_heads // kv_heads, size), v_BTKH.shape[-1])
        _, total_KQT, out_KQTH = jax.lax.fori_loop(0, start // size + 1, add_block, state)
        out_KQTH = (out_KQTH / total_KQT[..., None]).astype(q_BTNH.dtype)
        return out_KQTH.transpose(2, 0, 1, 3).reshape(1, size, num_heads, -1), cache

    hidden, cache = model.bind(params).hidden(tokens[None], positions_T[None], attend, cache)
    return hidden[0], cache


def decode_slots(
    model: Model,
    params: Any,
    cache: KVCache,
    tokens: jax.Array,
    positions: jax.Array,
    active: jax.Array,
) -> tuple[jax.Array, KVCache]:
    """Reads one token of every active slot; the columns of other slots stay as they are.

    Args:
      params: what `model.for_loop` made.
      tokens, positions: int32 `[P]`, the input tokens and their positions.
      active: bool `[P]`.

    Returns:
      The logits `[P, V]` of the next token, and the new cache.
    """
    slots, columns = tokens.shape[0], cache.suffix_k.shape[-1]
    column = jnp.where(active, positions, columns)  # A write outside the cache is dropped.
    size, _ = column_blocks(columns)
    blocks = jnp.where(active, positions, 0).max() // size + 1
    valid_PW = jnp.arange(columns) <= positions[:, None]
    cache = dataclasses.replace(cache, suffix_valid=valid_PW[:, None])

    def attend(q, k, v, cache, layer):
        rows = jnp.arange(slots)
        cache = dataclasses.replace(
            cache,
            suffix_k=cache.suffix_k.at[layer, rows, 0, :, :, column].set(k[:, 0], mode="drop"),
            suffix_v=cache.suffix_v.at[layer, rows, 0, :, column].set(v[:, 0], mode="drop"),
        )
        out = decode_attention(q.reshape(slots, 1, *q.shape[2:]), cache, layer, (0, blocks))
        return out.reshape(slots, 1, *out.shape[2:]), cache

    decoder = model.bind(params)
    hidden, cache = decoder.hidden(tokens[:, None], positions[:, None], attend, cache)
    return decoder.logits(hidden[:, 0]), cache


def copy_slot(cache: KVCache, source: jax.Array, target: jax.Array) -> KVCache:
    """Copies the keys and values of one slot to another."""
    return dataclasses.replace(
        cache,
        suffix_k=cache.suffix_k.at[:, target].set(cache.suffix_k[:, source]),
        suffix_v=cache.suffix_v.at[:, target].set(cache.suffix_v[:, source]),
    )
