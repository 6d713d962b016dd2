"""A pool of partial completions ("paths"): keys and values kept by place, forked by index.

A prompt's keys and values are stored once. A step of the search extends M rows of each prompt. All
of them fill the same columns, behind all that are in use; a mask says which columns belong to which
row, as in `models.decoding.sampler`. A path is copied once per step of the search, never once per
token, and no prefix is ever recomputed.

Where the R places of a prompt are at most M, as in beam search, the rows themselves are kept:
parents are gathered into them in place, and paths that stay move to rows without work. Rows of
unlike lengths leave holes; when these have grown, the columns are moved together. Where places are
more, as in tree search, rows are copied out of them and back, and there are no holes.

The device holds keys and values alone; `models.paths.places` keeps the numbers on the host.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.decoding import cached as over_cache
from models.layers.kv_cache import KVCache, column_blocks
from models.paths.places import Layout, Moves, Places
from models.sharding import constrain


@dataclasses.dataclass(frozen=True)
class PathPool:
    """Keys and values of P prompts and of R paths each. Immutable; an extension makes a new one.

    Attributes:
      places: which path lies where.
      prefix: keys `[L, P, K, H, S]` and values `[L, P, K, S, H]` of the prompts.
      paths: keys `[L, P, M, K, H, C]` and values `[L, P, M, K, C, H]` of the rows; or, where rows
        are not kept, `[L, P, R, K, H, W]` and `[L, P, R, K, W, H]` of the places.
    """

    places: Places
    prefix: tuple[jax.Array, jax.Array]
    paths: tuple[jax.Array, jax.Array]

    def fork(self, parents: np.ndarray, into: np.ndarray) -> tuple["PathPool", "PoolView"]:
        """The pool as it will be once `parents` lie in the rows, with the places `into` emptied.

        Its `paths` are still the old ones, of which `open_rows` makes rows, given the view.
        """
        places, moves = self.places.fork(parents, into)
        view = PoolView(
            self.prefix, places.prefix_lengths, moves, places.valid, np.int32(places.end)
        )
        return dataclasses.replace(self, places=places), view

    def extended(self, paths, into: np.ndarray, past: np.ndarray, new: np.ndarray) -> "PathPool":
        """The forked pool after its rows were extended.

        Args:
          paths: what `close_rows` returned.
          into, past, new: see `Places.extended`.
        """
        places, order = self.places.extended(into, past, new)
        if order is not None:
            paths = _close_holes(paths, order)
        return dataclasses.replace(self, places=places, paths=paths)


class PoolView(NamedTuple):
    """What a compiled step reads of a forked pool, besides the `paths` that it takes over.

    Attributes:
      prefix: of `PathPool`.
      prefix_lengths, valid, end: of its `Places`.
      moves: what moves before rows are extended, and after.
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
    """A pool without paths.

    Args:
      prefill: `prefill` below, compiled, with its model and layout.
      tokens, lengths: `[P, S]` and `[P]`, the prompts; a length of 0 is padding.
      cached: `[P]`, how many of a prompt's tokens are read now.
    """
    prefix, paths = prefill(params, tokens, cached)
    return PathPool(Places.of_prompts(layout, lengths, cached), prefix, paths)


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


def open_rows(layout: Layout, view: PoolView, paths) -> KVCache:
    """The forked rows behind their prompts; of `view.end` columns `view.valid` hold tokens."""
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


def close_rows(layout: Layout, view: PoolView, cache: KVCache, paths):
    """`PathPool.paths` with the extended rows; what a row has behind its tokens is never read."""
    rows = cache.suffix_k, cache.suffix_v
    if layout.in_place:
        return rows
    column, past = jnp.arange(layout.max_new_tokens), view.moves.past[..., None]
    added = jnp.minimum(view.end + column - past, layout.columns - 1)
    order = jnp.where(column < past, column, added)
    row = view.moves.back[None, :, :, None, None, None]

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
