"""A pool of partial completions ("paths"): keys and values kept by place, forked by index.

A prompt's keys and values are stored once. Of each prompt's R places, M lie open on the device: the
rows that a step of the search extends. The others, where R is more than M, lie on a shelf. To extend
paths, their parents are gathered into the rows, in place, and what must be kept besides into rows
without work or onto the shelf; which path lies where is the host's to know. All rows then fill the
same columns in step, behind all that are in use, and the mask of columns tells which of them are
whose, as in `models.sampler`. So a path is copied once per step of the search, never once per
token, and no prefix is ever recomputed. Rows of unlike lengths leave holes; when these have grown,
the columns of every path are moved together.

The device holds keys and values alone. Lengths, and whatever else is a number per path, are NumPy
arrays: the host needs them to check a request, and they come back with every step anyway.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models import cached as over_cache
from models.attention import KVCache, column_blocks
from models.config import ModelConfig
from models.sampler import bucket
from models.sharding import constrain

# The place of a bare prompt, and the length of what is not there.
ROOT, EMPTY = -1, -1


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is kept of each prompt's paths.

    Attributes:
      capacity: R, places.
      width: M, rows that lie open.
      max_new_tokens: W, most tokens of a path.
      step_tokens: T, most columns of a step.
    """

    capacity: int
    width: int
    max_new_tokens: int
    step_tokens: int

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")

    @property
    def shelf(self) -> int:
        """Paths that are kept beside the rows."""
        return max(0, self.capacity - self.width)

    @property
    def spare(self) -> int:
        """Columns that holes may take before they are closed: a block of attention."""
        return min(self.max_new_tokens, column_blocks(self.max_new_tokens)[0])

    @property
    def columns(self) -> int:
        """C: room for a path with holes and one more step, in whole blocks."""
        columns = self.max_new_tokens + self.spare + self.step_tokens
        size, blocks = column_blocks(columns)
        return size * blocks


@dataclasses.dataclass(frozen=True)
class PathPool:
    """Keys and values of P prompts and of R paths each. Immutable; an extension makes a new one.

    Numbers of paths are arrays `[P, R + 1]`, whose last column, which `ROOT` indexes, is that of
    the bare prompt.

    Attributes:
      prefix: keys `[L, P, K, H, S]` and values `[L, P, K, S, H]` of the prompts.
      rows: keys `[L, P, M, K, H, C]` and values `[L, P, M, K, C, H]` of the paths that lie open.
      shelf: the same of max(R - M, 0) others.
      prefix_lengths: `[P]`, columns of `prefix` that hold tokens.
      lengths: `[P, R + 1]`, tokens of each path, `EMPTY` where there is none; 0 for a prompt.
      lies: `[P, R + 1]`, where each path is: a row's number, or M and more for the shelf.
      valid: `[P, max(R, M), C]` bool, the columns that hold tokens, of rows and shelf.
      end: columns in use.
      spare: columns that holes may take.
    """

    prefix: tuple[jax.Array, jax.Array]
    rows: tuple[jax.Array, jax.Array]
    shelf: tuple[jax.Array, jax.Array]
    prefix_lengths: np.ndarray
    lengths: np.ndarray
    lies: np.ndarray
    valid: np.ndarray
    end: int
    spare: int

    def fork(self, parents: np.ndarray, into: np.ndarray) -> tuple["PathPool", np.ndarray]:
        """The pool as it will be once `parents` lie in the rows, with the places `into` emptied.

        Returns:
          the pool, whose `rows` and `shelf` are still the old ones; and what to gather from these
          into both, `[P, max(R, M)]`, for `gather_rows`.
        """
        used = into >= 0
        index = np.zeros(self.valid.shape[:2], np.int32)
        index[:, : used.shape[1]] = np.where(used, at(self.lies, parents), 0)
        filled = np.zeros(index.shape, bool)
        filled[:, : used.shape[1]] = used & (at(self.lengths, parents) > 0)
        # What else is held moves to where there is no work.
        lengths, lies = put(self.lengths, into, np.full(into.shape, EMPTY)), self.lies.copy()
        idle = np.ones(index.shape, bool)
        idle[:, : used.shape[1]] = ~used
        free = np.argsort(~idle, axis=1, kind="stable")
        held = lengths[:, :ROOT] > 0
        prompt, place = np.nonzero(held)
        target = free[prompt, (np.cumsum(held, 1) - 1)[prompt, place]]
        index[prompt, target] = self.lies[prompt, place]
        filled[prompt, target] = True
        lies[prompt, place] = target
        valid = np.take_along_axis(self.valid, index[..., None], 1) & filled[..., None]
        return dataclasses.replace(self, lengths=lengths, lies=lies, valid=valid), index

    def extended(self, rows, shelf, into: np.ndarray, past: np.ndarray, new: np.ndarray):
        """The forked pool after its rows were extended.

        Args:
          rows, shelf: what the device made of them.
          into: `[P, M]`, the places of the rows' paths; -1 for a row without work.
          past, new: `[P, M]`, the tokens of each before, and how many were added behind `end`.
        """
        valid, numbers = self.valid.copy(), np.broadcast_to(np.arange(into.shape[1]), into.shape)
        column = np.arange(valid.shape[-1]) - self.end
        valid[:, : into.shape[1]] |= (column >= 0) & (column < new[..., None])
        pool = dataclasses.replace(
            self,
            rows=rows,
            shelf=shelf,
            lengths=put(self.lengths, into, past + new),
            lies=put(self.lies, into, numbers),
            valid=valid,
            end=self.end + int(new.max()),
        )
        return pool._without_holes() if pool.end > pool._longest + pool.spare else pool

    @property
    def _longest(self) -> int:
        return max(0, int(self.lengths.max()))

    def _without_holes(self) -> "PathPool":
        order = np.argsort(~self.valid, axis=-1, kind="stable").astype(np.int32)
        rows, shelf = _move_columns(self.rows, self.shelf, order)
        valid = np.arange(order.shape[-1]) < self.valid.sum(-1, keepdims=True)
        return dataclasses.replace(self, rows=rows, shelf=shelf, valid=valid, end=self._longest)


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
    prefill: Callable, params: Any, tokens: np.ndarray, lengths: np.ndarray, cached: np.ndarray,
    layout: Layout,
) -> PathPool:  # fmt: skip
    """A pool without paths.

    Args:
      prefill: `prefill` below, compiled, with its model and layout.
      tokens, lengths: `[P, S]` and `[P]`, the prompts; a length of 0 is padding.
      cached: `[P]`, how many of a prompt's tokens are read now.
    """
    prefix, rows, shelf = prefill(params, tokens, cached)
    of_paths = np.full((len(tokens), layout.capacity + 1), EMPTY, np.int32)
    of_paths[lengths > 0, ROOT] = 0
    valid = np.zeros((len(tokens), layout.width + layout.shelf, layout.columns), bool)
    return PathPool(
        prefix, rows, shelf, cached, of_paths, np.zeros_like(of_paths), valid, 0, layout.spare
    )


def prefill(model, layout: Layout, params, tokens, lengths):
    """`prefix`, `rows` and `shelf` of a `PathPool` of prompts `tokens [P, S]`."""
    prompts, width = tokens.shape
    cache = constrain_cache(
        KVCache.zeros(model.config, prompts, layout.width, width, layout.columns)
    )
    cache = over_cache.prefill(model, params, cache, tokens, lengths, jnp.arange(prompts))
    cache = constrain_cache(cache)
    rows = cache.suffix_k, cache.suffix_v
    shelf = tuple(
        _constrain_paths(jnp.zeros((*x.shape[:2], layout.shelf, *x.shape[3:]), x.dtype))
        for x in rows
    )
    return (cache.prefix_k, cache.prefix_v), rows, shelf


def gather_rows(rows, shelf, index, end):
    """The `rows` and `shelf` that `index [P, max(R, M)]` chooses from both; of `end` columns."""
    size, _ = column_blocks(rows[0].shape[-1])
    index = index[None, :, :, None, None, None]

    def gather_block(number, held):
        def gather(row, kept, axis):
            block = [jax.lax.dynamic_slice_in_dim(x, number * size, size, axis) for x in (row, kept)]
            block = jnp.take_along_axis(jnp.concatenate(block, 2), index, 2)
            parts = block[:, :, : row.shape[2]], block[:, :, row.shape[2] :]
            return [
                jax.lax.dynamic_update_slice_in_dim(x, part, number * size, axis)
                for x, part in zip((row, kept), parts)
            ]

        (row_k, row_v), (kept_k, kept_v) = held
        row_k, kept_k = gather(row_k, kept_k, -1)
        row_v, kept_v = gather(row_v, kept_v, -2)
        return (row_k, row_v), (kept_k, kept_v)

    blocks = (end + size - 1) // size
    rows, shelf = jax.lax.fori_loop(0, blocks, gather_block, (tuple(rows), tuple(shelf)))
    return tuple(map(_constrain_paths, rows)), tuple(map(_constrain_paths, shelf))


def as_cache(prefix, prefix_lengths, rows, valid) -> KVCache:
    """The rows behind their prompts; `valid [P, M, C]`."""
    return constrain_cache(
        KVCache(
            prefix_k=prefix[0],
            prefix_v=prefix[1],
            suffix_k=rows[0],
            suffix_v=rows[1],
            prefix_valid=jnp.arange(prefix[0].shape[-1]) < prefix_lengths[:, None],
            suffix_valid=valid,
        )
    )


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _move_columns(rows, shelf, order):
    """`rows` and `shelf` with their columns in `order [P, max(R, M), C]`."""

    def move(held, order):
        order = order[None, :, :, None]
        keys = jnp.take_along_axis(held[0], order[..., None, :], -1)
        values = jnp.take_along_axis(held[1], order[..., None], -2)
        return _constrain_paths(keys), _constrain_paths(values)

    width = rows[0].shape[2]
    return move(rows, order[:, :width]), move(shelf, order[:, width:])


def constrain_cache(cache: KVCache) -> KVCache:
    """The cache, split over prompts and heads."""
    return dataclasses.replace(
        cache,
        prefix_k=constrain(cache.prefix_k, None, "batch", "kv_heads", None, None),
        prefix_v=constrain(cache.prefix_v, None, "batch", "kv_heads", None, None),
        suffix_k=_constrain_paths(cache.suffix_k),
        suffix_v=_constrain_paths(cache.suffix_v),
    )


def _constrain_paths(x):
    return constrain(x, None, "batch", None, "kv_heads", None, None)
