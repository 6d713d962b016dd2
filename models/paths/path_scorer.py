"""A verifier's view of a search: each step of a path is read once, behind keys and values kept.

The counterpart of `models.paths` for a model with a scalar head. Given the same places as the
`PathSampler`, it scores the new tokens alone: one forward pass over a step, whatever the length of
what comes before.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.compilations import count_programs
from models.decoding.sampler import bucket
from models.layers.attention import MASK_VALUE
from models.layers.kv_cache import KVCache, column_blocks, running_softmax
from models.paths import path_pool
from models.paths.path_pool import PathPool, PoolView
from models.paths.places import Layout, at, check_places, check_sizes, pad_prompts
from models.scalar_head import ScalarModel


@dataclasses.dataclass(frozen=True)
class StepValues:
    """Values after a step's tokens, float32 NumPy arrays; NaN where there is no token.

    Attributes:
      last: `[P, M]`, after each row's last token.
      tokens: `[P, M, T]`, after each token.
    """

    last: np.ndarray
    tokens: np.ndarray


class PathScorer:
    """Compiles stepwise scoring for one model and one shape of work; see `PathSampler`.

    Attributes:
      prompts: P, most prompts of a state.
      capacity: R, places for paths of each prompt.
      width: M, rows of each prompt that one call extends.
      max_new_tokens: W, most tokens of a path.
      step_tokens: most tokens of a step.
    """

    def __init__(
        self,
        model: ScalarModel,
        *,
        prompts: int,
        capacity: int,
        width: int,
        max_new_tokens: int,
        step_tokens: int,
    ):
        check_sizes(prompts=prompts)
        step_tokens = min(step_tokens, max_new_tokens)
        self._layout = Layout(capacity, width, max_new_tokens, step_tokens)
        self.model, self.prompts, self.capacity, self.width = model, prompts, capacity, width
        self.max_new_tokens, self.step_tokens = max_new_tokens, step_tokens
        self._start = jax.jit(functools.partial(path_pool.prefill, model, self._layout))
        self._extend = jax.jit(self._values)
        self._extend_donated = jax.jit(self._values, donate_argnames="stored")

    @property
    def compilations(self) -> int:
        """Programs compiled so far: one for each bucket of prompt length, and up to four for each
        with each bucket of step length."""
        return count_programs(self._start, self._extend, self._extend_donated)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathPool:
        """Reads each of up to P prompts, once.

        Raises:
          ValueError: see `places.pad_prompts`.
        """
        tokens, lengths = pad_prompts(
            prompt_ids, self.prompts, self.max_new_tokens, self.model.config
        )
        return path_pool.new_pool(self._start, params, tokens, lengths, lengths, self._layout)

    def extend(
        self,
        params: Any,
        pool: PathPool,
        parents: Any,
        into: Any,
        tokens: np.ndarray,
        lengths: np.ndarray,
        *,
        donate: bool = False,
    ) -> tuple[PathPool, StepValues]:
        """Appends steps to paths and scores every token of them.

        Args:
          parents, into: `[P, M]`, places as in `PathSampler.extend`.
          tokens: `[P, M, T]`, the steps; `lengths` `[P, M]`, how many tokens each has, at least
            one where `into` names a place.
          donate: `pool` is given up: the new one takes over its memory.

        Raises:
          ValueError: an empty step, tokens of another vocabulary, or a path longer than
            `max_new_tokens`; see `places.check_places` for the others.
        """
        places = pool.places
        never = np.zeros(places.lengths.shape, bool)
        parents, into = check_places(places.lengths, never, parents, into, self.width)
        used = into >= 0
        tokens, lengths = np.asarray(tokens, np.int32), np.where(used, lengths, 0)
        most = min(tokens.shape[2], self.step_tokens)
        if (bad := used & ((lengths < 1) | (lengths > most))).any():
            raise ValueError(f"a step has {lengths[bad][0]} tokens; it must have 1..{most}")
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= self.model.config.vocab_size:
            raise ValueError(
                "a step holds a token outside the verifier's vocabulary of "
                f"{self.model.config.vocab_size}; was it sampled with another tokenizer?"
            )
        past = np.where(used, at(places.lengths, parents), 0)
        if (past + lengths).max() > self.max_new_tokens:
            raise ValueError(
                f"a path of {(past + lengths).max()} tokens exceeds max_new_tokens="
                f"{self.max_new_tokens}"
            )
        # Steps of similar lengths share a program: T columns of a row, N tokens of a prompt.
        columns = min(bucket(int(lengths.max(initial=1)), least=8), self.step_tokens)
        most = _quarters(int(lengths.sum(1).max()), self.width * columns)
        prompt, row, number = np.nonzero(np.arange(columns) < lengths[..., None])
        # Side by side, so that rows of fewer tokens cost less.
        ends = np.cumsum(lengths, 1)
        unpack = np.minimum((ends - lengths)[..., None] + np.arange(columns), most - 1)
        packed = unpack[prompt, row, number]
        read = np.zeros((3, self.prompts, most), np.int32)
        read[0, prompt, packed] = tokens[prompt, row, number]
        read[1, prompt, packed] = (places.prefix_lengths[:, None] + past)[prompt, row] + number
        read[2, prompt, packed] = row * columns + number
        extend = self._extend_donated if donate else self._extend
        pool, view = pool.fork(parents, into)
        stored, values = extend(params, pool.paths, view, read, unpack)
        of_tokens = np.full(tokens.shape, np.nan, np.float32)
        of_tokens[prompt, row, number] = jax.device_get(values)[prompt, packed]
        last = np.take_along_axis(of_tokens, np.maximum(lengths - 1, 0)[..., None], -1)[..., 0]
        pool = pool.extended(stored, into, past, lengths)
        return pool, StepValues(last, of_tokens)

    def _values(self, params, stored, view: PoolView, read, unpack):
        P, M, T = unpack.shape
        tokens, positions, pack = read
        cache, end = path_pool.open_rows(self._layout, view, stored), view.end

        def to_rows(x_PUKH):
            """Packed tokens as rows `[P, M, T, K, H]`; what is behind a row's end means nothing."""
            index = unpack.reshape(P, M * T, 1, 1)
            return jnp.take_along_axis(x_PUKH, index, 1).reshape(P, M, T, *x_PUKH.shape[2:])

        def attend(q, k, v, cache, layer):
            q, k, v = to_rows(q), to_rows(k), to_rows(v)
            out = step_attention(q, k, v, cache, layer, end)
            k, v = k[None], v[None]
            cache = dataclasses.replace(
                cache,
                suffix_k=jax.lax.dynamic_update_slice(
                    cache.suffix_k, k.transpose(0, 1, 2, 4, 5, 3), (layer, 0, 0, 0, 0, end)
                ),
                suffix_v=jax.lax.dynamic_update_slice(
                    cache.suffix_v, v.transpose(0, 1, 2, 4, 3, 5), (layer, 0, 0, 0, end, 0)
                ),
            )
            out = out.reshape(P, M * T, *out.shape[3:])
            return jnp.take_along_axis(out, pack[..., None, None], 1), cache

        hidden, cache = self.model.bind(params).hidden(tokens, positions, attend, cache)
        values = self.model.values(params, hidden)
        return path_pool.close_rows(self._layout, view, cache, stored), values


def _quarters(size: int, most: int) -> int:
    """`size` rounded up to a quarter of `most`, and no finer than 64."""
    quarter = max(64, -(-most // 4))
    return min(most, quarter * -(-size // quarter))


def step_attention(
    q_PMTNH: jax.Array, k_PMTKH: jax.Array, v_PMTKH: jax.Array, cache: KVCache, layer, end
) -> jax.Array:
    """T queries of each path against its prompt, its past and its step: `[P, M, T, N, H]`.

    The past is what `suffix_valid` tells of the suffix before column `end`, read block by block. A
    step is causal. The prompt part is one matrix product over all rows of a prompt.
    """
    P, M, T, N, H = q_PMTNH.shape
    K, columns = cache.suffix_k.shape[3], cache.suffix_k.shape[-1]
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    # R = N / K query heads for each key head; S columns of the prompt, C of a block of the path.
    q_PMTKQH = (q_PMTNH * H**-0.5).astype(q_PMTNH.dtype).reshape(P, M, T, K, N // K, H)

    def of_layer(stacked):
        return jax.lax.dynamic_index_in_dim(stacked, layer, 0, keepdims=False)

    def add(state, scores_PMKTQC, valid, values, equation):
        scores = jnp.where(valid, scores_PMKTQC, MASK_VALUE)
        return running_softmax(
            state, scores, lambda weights: product(equation, weights.astype(values.dtype), values)
        )

    state = add(
        None,
        product("pmtkqh,pkhs->pmktqs", q_PMTKQH, of_layer(cache.prefix_k)),
        cache.prefix_valid[:, None, None, None, None],
        of_layer(cache.prefix_v),
        "pmktqs,pksh->pmktqh",
    )
    state = add(
        state,
        product("pmtkqh,pmskh->pmktqs", q_PMTKQH, k_PMTKH),
        jnp.tri(T, dtype=bool)[:, None],
        v_PMTKH,
        "pmktqs,pmskh->pmktqh",
    )
    size, _ = column_blocks(columns)

    def add_block(number, state):
        start = number * size
        k = jax.lax.dynamic_slice_in_dim(of_layer(cache.suffix_k), start, size, -1)
        v = jax.lax.dynamic_slice_in_dim(of_layer(cache.suffix_v), start, size, -2)
        valid_PMC = jax.lax.dynamic_slice_in_dim(cache.suffix_valid, start, size, -1)
        scores = product("pmtkqh,pmkhc->pmktqc", q_PMTKQH, k)
        return add(state, scores, valid_PMC[:, :, None, None, None], v, "pmktqc,pmkch->pmktqh")

    _, total, out = jax.lax.fori_loop(0, (end + size - 1) // size, add_block, state)
    out_PMKTQH = (out / total[..., None]).astype(q_PMTNH.dtype)
    return out_PMKTQH.transpose(0, 1, 3, 2, 4, 5).reshape(P, M, T, N, -1)
