"""A pool of partial completions ("paths"): keys and values kept by place, forked by index.

A prompt's keys and values are stored once. Each of its R places holds one path, its W columns
packed from the left. To extend paths, the rows of their parents are copied side by side into a
`KVCache`, with T fresh columns behind them that all rows fill in step; afterwards each row's fresh
columns are moved up behind its own tokens, and the rows are stored in their new places. So a path
is copied once per step of the search, never once per token, and no prefix is ever recomputed.

The device holds keys and values alone. Lengths, and whatever else is a number per path, are NumPy
arrays: the host needs them to check a request, and they come back with every step anyway.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.attention import MASK_VALUE, KVCache
from models.config import ModelConfig
from models.sampler import _prefill
from models.sharding import constrain

ROOT = -1
EMPTY = -1


@dataclasses.dataclass(frozen=True)
class PathPool:
    """Keys and values of P prompts and of R paths each. Immutable; an extension makes a new one.

    Attributes:
      prefix: keys `[L, P, K, H, S]` and values `[L, P, K, S, H]` of the prompts.
      suffix: keys `[L, P, R, K, H, W]` and values `[L, P, R, K, W, H]` of the paths.
      prefix_lengths: `[P]`, columns of `prefix` that hold tokens.
      lengths: `[P, R + 1]`, tokens of the path in each place, `EMPTY` where there is none. The
        last entry, which `ROOT` indexes, is the bare prompt: 0, or `EMPTY` for padding.
    """

    prefix: tuple[jax.Array, jax.Array]
    suffix: tuple[jax.Array, jax.Array]
    prefix_lengths: np.ndarray
    lengths: np.ndarray

    def of(self, numbers: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """`numbers [P, R + 1]`, one for each place, at the places `parents [P, M]`."""
        return np.take_along_axis(numbers, parents % numbers.shape[1], 1)

    def check(self, parents: np.ndarray, into: np.ndarray, width: int) -> None:
        """Raises `ValueError` unless `into` are places of their own and `parents` hold paths."""
        prompts, places = self.lengths.shape[0], self.lengths.shape[1] - 1
        for name, array in (("parents", parents), ("into", into)):
            if array.shape != (prompts, width):
                raise ValueError(f"{name} has shape {array.shape}; it must be {(prompts, width)}")
            if array.min() < -1 or array.max() >= places:
                bad = array[(array < -1) | (array >= places)][0]
                raise ValueError(f"{name} names place {bad}; there are -1..{places - 1}")
        for prompt, row in enumerate(into):
            named = row[row >= 0]
            if len(np.unique(named)) < len(named):
                raise ValueError(f"prompt {prompt} stores two paths in one place: into={row}")
        missing = (into >= 0) & (self.of(self.lengths, parents) == EMPTY)
        if missing.any():
            prompt, row = np.argwhere(missing)[0]
            raise ValueError(f"place {parents[prompt, row]} of prompt {prompt} holds no path yet")


def check_prompts(
    prompts: Sequence[Sequence[int]], most: int, max_new_tokens: int, config: ModelConfig
) -> None:
    """Raises `ValueError` for prompts that a pool cannot take."""
    if not 1 <= len(prompts) <= most:
        raise ValueError(f"{len(prompts)} prompts were given; this pool takes 1..{most}")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty; give at least a beginning-of-sequence token")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(
                f"prompt {i} holds a token outside the model's vocabulary of {config.vocab_size}; "
                "was it made by another tokenizer?"
            )
        if len(prompt) + max_new_tokens > config.max_length:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with {max_new_tokens} new ones it exceeds "
                f"the model's context of {config.max_length}: shorten it or lower max_new_tokens"
            )


def prefill(model, params, tokens, lengths, places: int, columns: int):
    """Keys and values of prompts `tokens [P, S]`, and those of `places` empty paths."""
    prompts, width = tokens.shape
    cache = _constrain(KVCache.zeros(model.config, prompts, places, width, columns))
    cache = _constrain(_prefill(model, params, cache, tokens, lengths, jnp.arange(prompts)))
    return (cache.prefix_k, cache.prefix_v), (cache.suffix_k, cache.suffix_v)


def open_rows(prefix, prefix_lengths, suffix, parents, lengths, past: int, fresh: int) -> KVCache:
    """The parents' rows `[P, M]` side by side: their first `past` columns, then `fresh` ones."""
    index = jnp.maximum(parents, 0)[None, :, :, None, None, None]
    rows_k = jnp.take_along_axis(suffix[0][..., :past], index, 2)
    rows_v = jnp.take_along_axis(suffix[1][..., :past, :], index, 2)
    widths = [(0, 0)] * 6
    valid = jnp.arange(past) < lengths[..., None]
    return _constrain(
        KVCache(
            prefix_k=prefix[0],
            prefix_v=prefix[1],
            suffix_k=jnp.pad(rows_k, [*widths[:5], (0, fresh)]),
            suffix_v=jnp.pad(rows_v, [*widths[:4], (0, fresh), (0, 0)]),
            prefix_valid=jnp.arange(prefix[0].shape[-1]) < prefix_lengths[:, None],
            suffix_valid=jnp.pad(valid, [(0, 0), (0, 0), (0, fresh)]),
        )
    )


def close_rows(cache: KVCache, suffix, into, lengths, past: int):
    """The pool with the rows of `cache` stored `into [P, M]`, fresh columns moved up to `lengths`.

    Columns beyond a path's tokens hold anything; they are never read.
    """
    columns, last = suffix[0].shape[-1], cache.suffix_k.shape[-1] - 1
    column = jnp.arange(columns)
    behind = column - lengths[..., None]
    source = jnp.where(behind < 0, column, jnp.minimum(past + behind, last))[None, :, :, None]
    rows_k = jnp.take_along_axis(cache.suffix_k, source[..., None, :], -1)
    rows_v = jnp.take_along_axis(cache.suffix_v, source[..., None], -2)
    places = suffix[0].shape[2]
    index = jnp.where(into < 0, places, into)

    def store(pool, rows):
        def of_prompt(pool, rows, index):
            return pool.at[:, index].set(rows, mode="drop")

        pool = jax.vmap(of_prompt, (1, 1, 0), 1)(pool, rows, index)
        return constrain(pool, None, "batch", None, "kv_heads", None, None)

    return store(suffix[0], rows_k), store(suffix[1], rows_v)


def _constrain(cache: KVCache) -> KVCache:
    return dataclasses.replace(
        cache,
        prefix_k=constrain(cache.prefix_k, None, "batch", "kv_heads", None, None),
        prefix_v=constrain(cache.prefix_v, None, "batch", "kv_heads", None, None),
        suffix_k=constrain(cache.suffix_k, None, "batch", None, "kv_heads", None, None),
        suffix_v=constrain(cache.suffix_v, None, "batch", None, "kv_heads", None, None),
    )
