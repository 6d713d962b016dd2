"""Stores the keys and values of a search's partial completions ("paths") and forks them by index.

The pool stores a prompt's keys and values once. A step of the search extends M rows of each prompt.
All rows write to the same columns, behind all columns in use; a mask says which columns belong to
which row, as in `models.decoding.sampler`. The pool copies a path once per step of the search,
never once per token, and computes no prefix twice.

If a prompt has at most M places (R <= M), as in beam search, the pool keeps the rows themselves
("in place"): it gathers parents into the rows, and paths that stay move to rows without work. Rows
of different lengths leave holes between their columns; once the holes have grown, the pool closes
them. If there are more places, as in tree search, the pool copies rows out of the places and back,
and no holes arise.

The device holds only keys and values; `models.paths.places` keeps the bookkeeping on the host.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import Model
from models.decoding import cached as over_cache
from models.layers.kv_cache import KVCache, column_blocks
from models.paths.places import Layout, Moves, Places
from models.sharding import constrain


@dataclasses.dataclass(frozen=True)
class PathPool:
    """Keys and values of P prompts and of up to R paths of each prompt.

    A pool is immutable; an extension returns a new one.

    Attributes:
      places: which path lies where, as numbers on the host.
      prefix: keys `[L, P, K, H, S]` and values `[L, P, K, S, H]` of the prompts.
      paths: if the layout is in place, keys `[L, P, M, K, H, O]` and values `[L, P, M, K, O, H]`
        of the rows; else keys `[L, P, R, K, H, W]` and values `[L, P, R, K, W, H]` of the places.
    """

    places: Places
    prefix: tuple[jax.Array, jax.Array]
    paths: tuple[jax.Array, jax.Array]

    def fork(self, parents: np.ndarray, into: np.ndarray) -> tuple["PathPool", "PoolView"]:
        """Plans an extension: puts `parents` into the rows and empties the places `into`.

        Args:
          parents, into: int32 `[P, M]`; see `PathSampler.extend`.

        Returns:
          The forked pool, and a view for the compiled step. The pool's `paths` are still the old
          ones; `open_rows` makes rows of them by the view.
        """
        places, moves = self.places.fork(parents, into)
        view = PoolView(
            self.prefix, places.prefix_lengths, moves, places.valid, np.int32(places.end)
        )
        return dataclasses.replace(self, places=places), view

    def extended(
        self,
        paths: tuple[jax.Array, jax.Array],
        into: np.ndarray,
        past: np.ndarray,
        new: np.ndarray,
    ) -> "PathPool":
        """Returns the forked pool after its rows were extended.

        Args:
          paths: what `close_rows` returned.
          into, past, new: see `Places.extended`.
        """
        places, order = self.places.extended(into, past, new)
        if order is not None:
            paths = _close_holes(paths, order)
        return dataclasses.replace(self, places=places, paths=paths)


class PoolView(NamedTuple):
    """The parts of a forked pool that a compiled step reads, except for `PathPool.paths`.

    `paths` are a separate argument, because a step may take over their memory.

    Attributes:
      prefix: `PathPool.prefix`.
      prefix_lengths, valid, end: the fields of `Places` with these names.
      moves: which paths move before the step and after it.
    """

    prefix: tuple[jax.Array, jax.Array]
    prefix_lengths: Any
    moves: Moves
    valid: Any
    end: Any


def new_pool(
    prefill: Callable, params: Any, tokens: np.ndarray, lengths: np.ndarray, cached: np.ndarray,
    layout: Layout,
) -> PathPool:  # fmt: skip
    """Reads prompts and returns a pool of them without paths.

    Args:
      prefill: the compiled function `prefill` of this module, with its model and layout bound.
      tokens: int32 `[P, S]`, the prompts.
      lengths: int32 `[P]`, tokens of each prompt; 0 marks a row of padding.
      cached: int32 `[P]`, how many of each prompt's tokens to read now.
    """
    prefix, paths = prefill(params, tokens, cached)
    return PathPool(Places.of_prompts(layout, lengths, cached), prefix, paths)


def prefill(
    model: Model, layout: Layout, params: Any, tokens: jax.Array, lengths: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Reads prompts and returns `prefix` and `paths` of a new `PathPool`.

    Args:
      tokens: int32 `[P, S]`, the prompts.
      lengths: int32 `[P]`, how many tokens of each prompt to read.
    """
    prompts, width = tokens.shape
    kept = layout.capacity, layout.max_new_tokens
    if layout.in_place:
        kept = layout.width, layout.columns
    cache = constrain_cache(KVCache.zeros(model.config, prompts, kept[0], width, kept[1]))
    cache = over_cache.prefill(model, params, cache, tokens, lengths, jnp.arange(prompts))
    cache = constrain_cache(cache)
    return (cache.prefix_k, cache.prefix_v), (cache.suffix_k, cache.suffix_v)


def open_rows(layout: Layout, view: PoolView, paths: tuple[jax.Array, jax.Array]) -> KVCache:
    """Returns a cache of the forked rows, ready to be extended from column `view.end` on.

    Args:
      paths: `PathPool.paths` from before the fork.
    """
    prefix = view.prefix
    if layout.in_place:
        rows = _gather_rows(paths, view.moves.source, view.end)
    else:
        index = view.moves.source[None, :, :, None, None, None]
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
            prefix_valid=jnp.arange(prefix[0].shape[-1]) < view.prefix_lengths[:, None],
            suffix_valid=view.valid,
        )
    )


def close_rows(
    layout: Layout, view: PoolView, cache: KVCache, paths: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Returns `PathPool.paths` with the extended rows stored in them.

    Columns behind a row's tokens may hold anything; nothing reads them.

    Args:
      cache: the cache of `open_rows`, after the step.
      paths: `PathPool.paths` from before the fork.
    """
    rows = cache.suffix_k, cache.suffix_v
    if layout.in_place:
        return rows
    column, past = jnp.arange(layout.max_new_tokens), view.moves.past[..., None]
    added = jnp.minimum(view.end + column - past, layout.columns - 1)
    order = jnp.where(column < past, column, added)
    row = view.moves.back[None, :, :, None, None, None]

    # Each place chooses a row or keeps its path. Unlike a scatter, this needs no communication when
    # prompts are split over devices.
    def store(paths, rows):
        chosen = jnp.take_along_axis(rows, jnp.maximum(row, 0), 2)
        return _constrain_paths(jnp.where(row >= 0, chosen, paths))

    keys, values = _in_order(rows, order)
    return store(paths[0], keys), store(paths[1], values)


def _in_order(rows, order):
    """Returns the rows with their columns in the order of the indices `order [P, M, O]`."""
    order = order[None, :, :, None]
    keys = jnp.take_along_axis(rows[0], order[..., None, :], -1)
    values = jnp.take_along_axis(rows[1], order[..., None], -2)
    return _constrain_paths(keys), _constrain_paths(values)


_close_holes = jax.jit(_in_order, donate_argnums=0)


def _gather_rows(rows, index, end):
    """Returns the rows that `index [P, M]` names.

    Works in place, one block of the columns in use after the other.
    """
    size, _ = column_blocks(rows[0].shape[-1])

    def gather_block(number, rows):
        def gather(x, axis):
            block = jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)
            block = jnp.take_along_axis(block, index[None, :, :, None, None, None], 2)
            return jax.lax.dynamic_update_slice_in_dim(x, block, number * size, axis)

        return gather(rows[0], -1), gather(rows[1], -2)

    return jax.lax.fori_loop(0, (end + size - 1) // size, gather_block, tuple(rows))


def constrain_cache(cache: KVCache) -> KVCache:
    """Returns the cache with its arrays split over devices by prompts and heads."""
    return dataclasses.replace(
        cache,
        prefix_k=constrain(cache.prefix_k, None, "batch", "kv_heads", None, None),
        prefix_v=constrain(cache.prefix_v, None, "batch", "kv_heads", None, None),
        suffix_k=_constrain_paths(cache.suffix_k),
        suffix_v=_constrain_paths(cache.suffix_v),
    )


def _constrain_paths(x):
    return constrain(x, None, "batch", None, "kv_heads", None, None)
