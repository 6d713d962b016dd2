"""A pool of partial completions ("paths"): keys and values kept by place, forked by index.

A prompt's keys and values are stored once. A step of the search extends M rows of each prompt. All
of them fill the same columns, behind all that are in use; a mask of columns tells which are whose,
as in `models.decoding.sampler`. A path is copied once per step of the search, never once per token, and no
prefix is ever recomputed.

Where the R places of a prompt are at most M, as in beam search, the rows themselves are kept:
parents are gathered into them in place, what is kept besides moves to rows without work, and which
path lies where is the host's to know. Rows of unlike lengths leave holes; when these have grown,
the columns are moved together. Where places are more, as in tree search, rows are copied out of
them and back, and there are no holes.

The device holds keys and values alone. Lengths, and whatever else is a number per path, are NumPy
arrays: the host needs them to check a request, and they come back with every step anyway.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.decoding import cached as over_cache
from models.decoding.sampler import bucket
from models.layers.kv_cache import KVCache, column_blocks
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
        check_sizes(**dataclasses.asdict(self))

    @property
    def in_place(self) -> bool:
        """Whether the rows are the places."""
        return self.capacity <= self.width

    @property
    def spare(self) -> int:
        """Columns that holes may take before they are closed: a block of attention."""
        return min(self.max_new_tokens, column_blocks(self.max_new_tokens)[0])

    @property
    def columns(self) -> int:
        """C of the rows, in whole blocks: room for a path, its holes, and one more step."""
        columns = self.max_new_tokens + self.step_tokens + self.in_place * self.spare
        size, blocks = column_blocks(columns)
        return size * blocks


@dataclasses.dataclass(frozen=True)
class PathPool:
    """Keys and values of P prompts and of R paths each. Immutable; an extension makes a new one.

    Numbers of paths are arrays `[P, R + 1]`, whose last column, which `ROOT` indexes, is that of
    the bare prompt.

    Attributes:
      layout: what is kept of each prompt.
      prefix: keys `[L, P, K, H, S]` and values `[L, P, K, S, H]` of the prompts.
      paths: keys `[L, P, M, K, H, C]` and values `[L, P, M, K, C, H]` of the rows; or, where rows
        are not kept, `[L, P, R, K, H, W]` and `[L, P, R, K, W, H]` of the places.
      prefix_lengths: `[P]`, columns of `prefix` that hold tokens.
      lengths: `[P, R + 1]`, tokens of each path, `EMPTY` where there is none; 0 for a prompt.
      lies: `[P, R + 1]`, the row that each path lies in, where rows are kept.
      valid: `[P, M, C]` bool, the columns of the rows that hold tokens.
      end: columns in use, of the rows.
    """

    layout: Layout
    prefix: tuple[jax.Array, jax.Array]
    paths: tuple[jax.Array, jax.Array]
    prefix_lengths: np.ndarray
    lengths: np.ndarray
    lies: np.ndarray
    valid: np.ndarray
    end: int

    def fork(self, parents: np.ndarray, into: np.ndarray) -> tuple["PathPool", "Moves"]:
        """The pool as it will be once `parents` lie in the rows, with the places `into` emptied.

        Its `paths` are still the old ones, of which `open_rows` is to make rows.
        """
        used, past = into >= 0, np.maximum(at(self.lengths, parents), 0)
        past = np.where(used, past, 0)
        lengths = put(self.lengths, into, np.full(into.shape, EMPTY))
        if self.layout.in_place:
            lies, source = self._make_room(lengths, used)
            source = np.where(used, at(self.lies, parents), source)
            valid = np.take_along_axis(self.valid, source[..., None], 1)
            valid &= (~used | (past > 0))[..., None]
            back, end = np.full((len(into), 0), -1), self.end
        else:
            lies, source, end = self.lies, np.maximum(parents, 0), int(past.max())
            valid = np.arange(self.valid.shape[-1]) < past[..., None]
            rows = np.broadcast_to(np.arange(into.shape[1]), into.shape)
            back = put(np.full(lengths.shape, -1), into, rows)[:, :ROOT]
        pool = dataclasses.replace(self, lengths=lengths, lies=lies, valid=valid, end=end)
        return pool, Moves(*(x.astype(np.int32) for x in (source, back, past)))

    def _make_room(self, lengths: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`lies` and the rows' sources, once what is held in `used [P, M]` has left them."""
        lies, source = self.lies.copy(), np.tile(np.arange(used.shape[1]), (len(used), 1))
        held = lengths[:, :ROOT] > 0
        displaced = held & np.take_along_axis(used, lies[:, :ROOT], 1)
        if not displaced.any():
            return lies, source
        taken = used.copy()
        prompt, place = np.nonzero(held & ~displaced)
        taken[prompt, lies[prompt, place]] = True
        free = np.argsort(taken, axis=1, kind="stable")
        prompt, place = np.nonzero(displaced)
        target = free[prompt, (np.cumsum(displaced, 1) - 1)[prompt, place]]
        source[prompt, target] = lies[prompt, place]
        lies[prompt, place] = target
        return lies, source

    def extended(self, paths, into: np.ndarray, past: np.ndarray, new: np.ndarray) -> "PathPool":
        """The forked pool after its rows were extended.

        Args:
          paths: what the device made of them.
          into: `[P, M]`, the places of the rows' paths; -1 for a row without work.
          past, new: `[P, M]`, the tokens of each before, and how many were added behind `end`.
        """
        lengths = put(self.lengths, into, past + new)
        if not self.layout.in_place:
            return dataclasses.replace(self, paths=paths, lengths=lengths)
        column = np.arange(self.valid.shape[-1]) - self.end
        pool = dataclasses.replace(
            self,
            paths=paths,
            lengths=lengths,
            lies=put(self.lies, into, np.broadcast_to(np.arange(into.shape[1]), into.shape)),
            valid=self.valid | ((column >= 0) & (column < new[..., None])),
            end=self.end + int(new.max()),
        )
        longest = int(pool.valid.sum(-1).max())
        if pool.end <= longest + self.layout.spare:
            return pool
        order = np.argsort(~pool.valid, axis=-1, kind="stable").astype(np.int32)
        return dataclasses.replace(
            pool,
            paths=_close_holes(paths, order),
            valid=np.take_along_axis(pool.valid, order, -1),
            end=longest,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moves:
    """What moves before rows are extended, and after.

    Attributes:
      source: `[P, M]`, what comes into each row: a row, or a place where rows are not kept.
      back: `[P, R]`, the row then stored in each place, or -1; `[P, 0]` where rows are kept.
      past: `[P, M]`, tokens of each row before.
    """

    source: Any
    back: Any
    past: Any


def at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The numbers `[P, R + 1]` of the paths in `places [P, M]`."""
    return numbers[np.arange(len(numbers))[:, None], places]


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
    prefix, paths = prefill(params, tokens, cached)
    of_paths = np.full((len(tokens), layout.capacity + 1), EMPTY, np.int32)
    of_paths[lengths > 0, ROOT] = 0
    valid = np.zeros((len(tokens), layout.width, layout.columns), bool)
    return PathPool(layout, prefix, paths, cached, of_paths, np.zeros_like(of_paths), valid, 0)


def prefill(model, layout: Layout, params, tokens, lengths):
    """`prefix` and `paths` of a `PathPool` of prompts `tokens [P, S]`."""
    prompts, width = tokens.shape
    kept = layout.capacity, layout.max_new_tokens
    if layout.in_place:
        kept = layout.width, layout.columns
    cache = constrain_cache(KVCache.zeros(model.config, prompts, kept[0], width, kept[1]))
    cache = over_cache.prefill(model, params, cache, tokens, lengths, jnp.arange(prompts))
    cache = constrain_cache(cache)
    return (cache.prefix_k, cache.prefix_v), (cache.suffix_k, cache.suffix_v)


def open_rows(layout: Layout, prefix, prefix_lengths, paths, moves: Moves, valid, end) -> KVCache:
    """The rows behind their prompts, after the moves; of `end` columns, which `valid` tells of."""
    if layout.in_place:
        rows = _gather_rows(paths, moves.source, end)
    else:
        index = moves.source[None, :, :, None, None, None]
        room, none = (0, layout.columns - layout.max_new_tokens), (0, 0)
        rows = (
            jnp.pad(jnp.take_along_axis(paths[0], index, 2), [none] * 5 + [room]),
            jnp.pad(jnp.take_along_axis(paths[1], index, 2), [none] * 4 + [room, none]),
        )
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


def close_rows(layout: Layout, cache: KVCache, paths, moves: Moves, end):
    """`PathPool.paths` with the extended rows; what a row has behind its tokens is never read."""
    rows = cache.suffix_k, cache.suffix_v
    if layout.in_place:
        return rows
    column, past = jnp.arange(layout.max_new_tokens), moves.past[..., None]
    order = jnp.where(column < past, column, jnp.minimum(end + column - past, layout.columns - 1))
    row = moves.back[None, :, :, None, None, None]

    # Each place chooses a row or stays: split over prompts as it stands, unlike a scatter.
    def store(paths, rows):
        chosen = jnp.take_along_axis(rows, jnp.maximum(row, 0), 2)
        return _constrain_paths(jnp.where(row >= 0, chosen, paths))

    return tuple(map(store, paths, _in_order(rows, order)))


def _in_order(rows, order):
    """The rows with their columns in `order [P, M, C]`."""
    order = order[None, :, :, None]
    keys = jnp.take_along_axis(rows[0], order[..., None, :], -1)
    values = jnp.take_along_axis(rows[1], order[..., None], -2)
    return _constrain_paths(keys), _constrain_paths(values)


_close_holes = jax.jit(_in_order, donate_argnums=0)


def _gather_rows(rows, index, end):
    """The rows that `index [P, M]` names, block by block of the columns in use, in place."""
    size, _ = column_blocks(rows[0].shape[-1])

    def gather_block(number, rows):
        def gather(x, axis):
            block = jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)
            block = jnp.take_along_axis(block, index[None, :, :, None, None, None], 2)
            return jax.lax.dynamic_update_slice_in_dim(x, block, number * size, axis)

        return gather(rows[0], -1), gather(rows[1], -2)

    return jax.lax.fori_loop(0, (end + size - 1) // size, gather_block, tuple(rows))


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
