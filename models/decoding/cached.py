"""The decoder with its keys and values in a `KVCache`: prompts at once, then token by token."""

import dataclasses

import jax
import jax.numpy as jnp

from models.layers import attention
from models.layers.kv_cache import KVCache, decode_attention


def prefill(model, params, cache: KVCache, tokens, lengths, slots) -> KVCache:
    """The cache with keys and values of prompts `tokens [A, S]` in `slots [A]`.

    The slots' suffixes are emptied. Slot P means nowhere. `lengths [A]` are those of the prompts.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    valid = positions < lengths[:, None]

    def attend(q, k, v, cache, layer):
        out = attention.packed_attention(q, k, v, valid.astype(jnp.int32))
        cache = dataclasses.replace(
            cache,
            prefix_k=cache.prefix_k.at[layer, slots].set(k.transpose(0, 2, 3, 1), mode="drop"),
            prefix_v=cache.prefix_v.at[layer, slots].set(v.transpose(0, 2, 1, 3), mode="drop"),
        )
        return out, cache

    _, cache = model.bind(params).hidden(tokens, positions, attend, cache)
    return dataclasses.replace(
        cache,
        prefix_valid=cache.prefix_valid.at[slots].set(valid, mode="drop"),
        suffix_valid=cache.suffix_valid.at[slots].set(False, mode="drop"),
    )


def decode(model, params, cache: KVCache, tokens, positions, column, active, live=None):
    """Logits `[P * G, V]` after one input token per sample, and the cache with it.

    Args:
      params: in a loop, `model.for_loop(params)`, made outside it.
      tokens, positions: `[P, G]`, of the input.
      column: where the suffix takes the new keys and values.
      active: `[P, G]`, whether that column will hold a token.
      live: see `decode_attention`.
    """
    prompts, group = tokens.shape
    cache = dataclasses.replace(
        cache,
        suffix_valid=jax.lax.dynamic_update_slice(
            cache.suffix_valid, active[..., None], (0, 0, column)
        ),
    )

    def attend(q, k, v, cache, layer):
        k = k.reshape(1, prompts, group, *k.shape[2:], 1)
        v = v.reshape(1, prompts, group, v.shape[2], 1, v.shape[3])
        cache = dataclasses.replace(
            cache,
            suffix_k=jax.lax.dynamic_update_slice(cache.suffix_k, k, (layer, 0, 0, 0, 0, column)),
            suffix_v=jax.lax.dynamic_update_slice(cache.suffix_v, v, (layer, 0, 0, 0, column, 0)),
        )
        q = q.reshape(prompts, group, *q.shape[2:])
        out = decode_attention(q, cache, layer, live)
        return out.reshape(prompts * group, 1, *out.shape[2:]), cache

    decoder = model.bind(params)
    hidden, cache = decoder.hidden(
        tokens.reshape(-1, 1), positions.reshape(-1, 1), attend, cache
    )
    return decoder.logits(hidden[:, 0]), cache
