"""Runs the decoder over a `KVCache`: `prefill` reads whole prompts, `decode` reads single tokens.

Both are pure functions that a compiled sampler calls.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from models.decoder import Model
from models.layers import attention
from models.layers.kv_cache import KVCache, decode_attention


def prefill(
    model: Model,
    params: Any,
    cache: KVCache,
    tokens: jax.Array,
    lengths: jax.Array,
    slots: jax.Array,
) -> KVCache:
    """Reads prompts and stores their keys and values in the cache; empties the slots' suffixes.

    Args:
      params: the parameter pytree, or what `model.for_loop` made of it.
      tokens: int32 `[A, S]`, the prompts.
      lengths: int32 `[A]`, tokens of each prompt.
      slots: int32 `[A]`, the slot of each prompt; a prompt with slot P is not stored.

    Returns:
      The new cache.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    valid = positions < lengths[:, None]

    def attend(q, k, v, cache, layer):
        out = attention.packed_attention(q, k, v, valid.astype(jnp.int32))
        return out, cache.with_prompts(layer, slots, k, v)

    _, cache = model.bind(params).hidden(tokens, positions, attend, cache)
    return dataclasses.replace(
        cache,
        prefix_valid=cache.prefix_valid.at[slots].set(valid, mode="drop"),
        suffix_valid=cache.suffix_valid.at[slots].set(False, mode="drop"),
    )


def decode(
    model: Model,
    params: Any,
    cache: KVCache,
    tokens: jax.Array,
    positions: jax.Array,
    column: jax.Array,
    active: jax.Array,
    live: tuple[jax.Array | int, jax.Array] | None = None,
) -> tuple[jax.Array, KVCache]:
    """Reads one token per sample.

    Args:
      params: the parameter pytree; inside a loop pass `model.for_loop(params)`, made before it.
      tokens, positions: int32 `[P, G]`, the input tokens and their positions.
      column: int32, the column of the suffix that stores the new keys and values.
      active: bool `[P, G]`, whether that column counts as holding a token of the sample.
      live: see `decode_attention`.

    Returns:
      The logits `[P * G, V]` of the next token, and the new cache.
    """
    prompts, group = tokens.shape
    cache = dataclasses.replace(
        cache,
        suffix_valid=jax.lax.dynamic_update_slice(
            cache.suffix_valid, active[..., None], (0, 0, column)
        ),
    )

    def attend(q, k, v, cache, layer):
        q, k, v = (x.reshape(prompts, group, *x.shape[2:]) for x in (q, k, v))
        cache = cache.with_column(layer, column, k, v)
        out = decode_attention(q, cache, layer, live)
        return out.reshape(prompts * group, 1, *out.shape[2:]), cache

    decoder = model.bind(params)
    hidden, cache = decoder.hidden(tokens.reshape(-1, 1), positions.reshape(-1, 1), attend, cache)
    return decoder.logits(hidden[:, 0]), cache
