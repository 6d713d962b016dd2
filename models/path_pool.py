"""A pool of partial completions ("paths"): keys and values kept by place, forked by index.

A prompt's keys and values are stored once. Each of its R places holds one path in the first of W
columns. To extend paths, the rows of their parents are copied side by side into a `KVCache` behind
T fresh columns, which all rows fill in step; afterwards what a row gained is moved behind its path,
and the path stored in its new place. So a path is copied once per step of the search, never once
per token, and no prefix is ever recomputed.

The device holds keys and values alone. Lengths, and whatever else is a number per path, are NumPy
arrays: the host needs them to check a request, and they come back with every step anyway.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models import cached as over_cache
from models.attention import KVCache
from models.config import ModelConfig
from models.sampler import bucket
from models.sharding import constrain

# The place of a bare prompt, and the length of what is not there.
ROOT, EMPTY = -1, -1


@dataclasses.dataclass(frozen=True)
class PathPool:
    """Keys and values of P prompts and of R paths each. Immutable; an extension makes a new one.

    Numbers of paths are arrays `[P, R + 1]`, whose last column, which `ROOT` indexes, is that of
    the bare prompt.

    Attributes:
      prefix: keys `[L, P, K, H, S]` and values `[L, P, K, S, H]` of the prompts.
      suffix: keys `[L, P, R, K, H, W]` and values `[L, P, R, K, W, H]` of the paths.
      prefix_lengths: `[P]`, columns of `prefix` that hold tokens.
      lengths: `[P, R + 1]`, tokens of each path, `EMPTY` where there is none; 0 for a prompt.
    """

    prefix: tuple[jax.Array, jax.Array]
    suffix: tuple[jax.Array, jax.Array]
    prefix_lengths: np.ndarray
    lengths: np.ndarray

    def replace(self, suffix, into: np.ndarray, lengths: np.ndarray) -> "PathPool":
        """The pool after paths of these `lengths` were stored `into` places."""
        return dataclasses.replace(self, suffix=suffix, lengths=put(self.lengths, into, lengths))


def at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The numbers `[P, R + 1]` of the paths in `places [P, M]`."""
    return np.take_along_axis(numbers, places % numbers.shape[1], 1)


def put(numbers: np.ndarray, into: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A copy of `numbers [P, R + 1]` with `values [P, M]` in the places `into`; -1 is nowhere."""
    numbers = numbers.copy()
    prompt, row = np.nonzero(into >= 0)
    numbers[prompt, into[prompt, row]] = values[prompt, row]
    return numbers


def check_places(
    lengths: np.ndarray, ended: np.ndarray, parents: Any, into: Any, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A request to extend `parents` and store the results in `into`, as arrays `[P, width]`.

    Args:
      lengths, ended: `[P, R + 1]`, the tokens of each path, and whether it may not be extended.

    Raises:
      ValueError: a wrong shape, a place that is not there, that holds no path or one that has
        ended, or two paths stored in one place.
    """
    parents, into = np.asarray(parents, np.int32), np.asarray(into, np.int32)
    prompts, places = lengths.shape[0], lengths.shape[1] - 1
    for name, array in (("parents", parents), ("into", into)):
        if array.shape != (prompts, width):
            raise ValueError(f"{name} has shape {array.shape}; it must be {(prompts, width)}")
        if array.min() < -1 or array.max() >= places:
            bad = array[(array < -1) | (array >= places)][0]
            raise ValueError(f"{name} names place {bad}; places are 0..{places - 1}, or -1")
    ordered = np.sort(into, 1)
    if (twice := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        prompt, row = np.argwhere(twice)[0]
        raise ValueError(
            f"two paths of prompt {prompt} would be stored in place {ordered[prompt, row]}"
        )
    for numbers, bad, why in ((lengths, EMPTY, "holds no path"), (ended, True, "has ended")):
        if (found := (into >= 0) & (at(numbers, parents) == bad)).any():
            prompt, row = np.argwhere(found)[0]
            raise ValueError(
                f"place {parents[prompt, row]} of prompt {prompt} {why}; it cannot be extended"
            )
    return parents, into


def check_sizes(**sizes: int) -> None:
    """Raises `ValueError` for a size below one."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def pad_prompts(
    prompts: Sequence[Sequence[int]], most: int, max_new_tokens: int, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """`most` rows of tokens, as wide as the longest prompt's bucket, and their lengths.

    Raises:
      ValueError: no or too many prompts, an empty one, a token outside the vocabulary, or no room
        for `max_new_tokens` in the model's context.
    """
    if not 1 <= len(prompts) <= most:
        raise ValueError(f"{len(prompts)} prompts were given; there is room for 1..{most}")
    lengths = np.zeros(most, np.int32)
    lengths[: len(prompts)] = [len(prompt) for prompt in prompts]
    tokens = np.zeros((most, bucket(int(lengths.max()), least=16)), np.int32)
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
        tokens[i, : len(prompt)] = prompt
    return tokens, lengths


def new_pool(
    prefill: Callable,
    params: Any,
    tokens: np.ndarray,
    lengths: np.ndarray,
    cached: np.ndarray,
    capacity: int,
) -> PathPool:
    """A pool without paths.

    Args:
      prefill: `prefill` below, compiled, with its model and numbers of places and columns.
      tokens, lengths: `[P, S]` and `[P]`, the prompts; a length of 0 is padding.
      cached: `[P]`, how many of a prompt's tokens are read now.
    """
    prefix, suffix = prefill(params, tokens, cached)
    of_paths = np.full((len(tokens), capacity + 1), EMPTY, np.int32)
    of_paths[lengths > 0, ROOT] = 0
    return PathPool(prefix, suffix, cached, of_paths)


def prefill(model, capacity: int, columns: int, params, tokens, lengths):
    """`PathPool.prefix` of prompts `tokens [P, S]`, and the `suffix` of as many empty places."""
    prompts, width = tokens.shape
    cache = _constrain(KVCache.zeros(model.config, prompts, capacity, width, columns))
    everywhere = jnp.arange(prompts)
    cache = over_cache.prefill(model, params, cache, tokens, lengths, everywhere)
    cache = _constrain(cache)
    return (cache.prefix_k, cache.prefix_v), (cache.suffix_k, cache.suffix_v)


def open_rows(prefix, prefix_lengths, suffix, parents, lengths, fresh: int) -> KVCache:
    """The parents' rows `[P, M]` side by side, of `lengths` tokens, behind `fresh` columns."""
    index = jnp.maximum(parents, 0)[None, :, :, None, None, None]
    rows_k = jnp.take_along_axis(suffix[0], index, 2)
    rows_v = jnp.take_along_axis(suffix[1], index, 2)
    columns, room, none = suffix[0].shape[-1], (fresh, 0), (0, 0)
    valid = jnp.arange(columns) < lengths[..., None]
    return _constrain(
        KVCache(
            prefix_k=prefix[0],
            prefix_v=prefix[1],
            suffix_k=jnp.pad(rows_k, [none, none, none, none, none, room]),
            suffix_v=jnp.pad(rows_v, [none, none, none, none, room, none]),
            prefix_valid=jnp.arange(prefix[0].shape[-1]) < prefix_lengths[:, None],
            suffix_valid=jnp.pad(valid, [none, none, room]),
        )
    )


def close_rows(cache: KVCache, suffix, into, lengths):
    """`PathPool.suffix` with rows stored in `into [P, M]`.

    Args:
      lengths: `[P, M]`, tokens of the rows before they were extended, behind which the fresh
        columns go. What those hold that a row did not fill is never read.
    """
    prompts, places, columns = *into.shape[:1], suffix[0].shape[2], suffix[0].shape[-1]
    fresh = cache.suffix_k.shape[-1] - columns
    column, lengths = jnp.arange(columns), lengths[..., None]
    source = jnp.where(column < lengths, fresh + column, jnp.minimum(column - lengths, fresh - 1))
    source = source[None, :, :, None]
    rows_k = jnp.take_along_axis(cache.suffix_k, source[..., None, :], -1)
    rows_v = jnp.take_along_axis(cache.suffix_v, source[..., None], -2)
    # Each place chooses its new row or stays: faster than a scatter on CPU, and split over prompts
    # as it stands. Index -1 is one place too many, cut off.
    row = jnp.full((prompts, places + 1), -1).at[jnp.arange(prompts)[:, None], into].set(
        jnp.arange(into.shape[1])
    )[None, :, :places, None, None, None]

    def store(pool, rows):
        pool = jnp.where(row >= 0, jnp.take_along_axis(rows, jnp.maximum(row, 0), 2), pool)
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
