"""The compiled verifier for searches: scores every token of each new step once.

This is the counterpart of `models.paths.path_sampler` for a model with a scalar head. Its caller
names the same places as for the `PathSampler`. The scorer keeps keys and values of its own, so it
reads only the new tokens: one forward pass over a step, however long the path before it is.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.cpu.products import float32_product
from models.decoding.compilations import count_programs
from models.decoding.requests import bucket
from models.layers.attention import MASK_VALUE
from models.layers.kv_cache import KVCache, column_blocks, running_softmax
from models.paths import path_pool
from models.paths.path_pool import PathPool, PoolView
from models.paths.places import Layout, at, check_places, check_sizes, pad_prompts
from models.scalar_head import ScalarModel


@dataclasses.dataclass(frozen=True)
class StepValues:
    """The verifier's values for one step of each row, float32 NumPy arrays; NaN without a token.

    Attributes:
      last: `[P, M]`, the value after each row's last token.
      tokens: `[P, M, T]`, the value after each token.
    """

    last: np.ndarray
    tokens: np.ndarray


class PathScorer:
    """Scores steps with one model, compiled for one number of prompts, places, rows and tokens.

    Attributes:
      model: the verifier.
      prompts: P, most prompts of a pool.
      capacity: R, places for the paths of each prompt.
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
        """Creates a scorer; compilation happens at the first calls.

        Raises:
          ValueError: a size below one.
        """
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
        """The number of programs compiled so far.

        There is one for each bucket of prompt length, and up to four for each pair of buckets of
        prompt length and step length.
        """
        return count_programs(self._start, self._extend, self._extend_donated)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathPool:
        """Reads each of up to P prompts once and returns a pool without paths.

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
          params: parameters of the verifier.
          parents, into: int `[P, M]`, places as in `PathSampler.extend`.
          tokens: int32 `[P, M, T]`, the steps.
          lengths: int `[P, M]`, tokens of each step; at least one where `into` names a place.
          donate: whether the new pool takes over the memory of `pool`, which then is lost.

        Returns:
          The new pool, and the values of the steps.

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
            raise ValueError(
                f"a step has {lengths[bad][0]} tokens; it must have 1..{most}. Split longer steps,"
                " and leave out empty ones (into=-1)"
            )
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= self.model.config.vocab_size:
            raise ValueError(
                "a step holds a token outside the verifier's vocabulary of "
                f"{self.model.config.vocab_size}; was it sampled with another tokenizer?"
            )
        past = np.where(used, at(places.lengths, parents), 0)
        if (past + lengths).max() > self.max_new_tokens:
            raise ValueError(
                f"a path of {(past + lengths).max()} tokens exceeds max_new_tokens="
                f"{self.max_new_tokens}; make the scorer with a larger max_new_tokens"
            )
        # Steps of similar lengths share a program: both T, the columns of a row, and U, the tokens
        # of a prompt, are rounded up.
        columns = min(bucket(int(lengths.max(initial=1)), least=8), self.step_tokens)
        most = _quarters(int(lengths.sum(1).max()), self.width * columns)
        prompt, row, number = np.nonzero(np.arange(columns) < lengths[..., None])
        # The rows' tokens lie side by side without padding, so that shorter rows cost less.
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
        """Runs the compiled part of `extend`.

        Args:
          stored: `PathPool.paths` from before the fork.
          read: int32 `[3, P, U]`: the packed tokens, their positions, and where each of them lies
            in the unpacked rows (row * T + column).
          unpack: int `[P, M, T]`: where the token of each row and column lies among the packed.

        Returns:
          `PathPool.paths` with the steps, and the values `[P, U]`.
        """
        tokens, positions, pack = read
        cache, end = path_pool.open_rows(self._layout, view, stored), view.end

        def to_rows(x_PUKH):
            """Unpacks to rows `[P, M, T, K, H]`; entries behind a row's end have no meaning."""
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
    """Rounds up to a multiple of a quarter of `most`, or of 64 if that is more; at most `most`."""
    quarter = max(64, -(-most // 4))
    return min(most, quarter * -(-size // quarter))


def step_attention(
    q_PMTNH: jax.Array,
    k_PMTKH: jax.Array,
    v_PMTKH: jax.Array,
    cache: KVCache,
    layer: jax.Array | int,
    end: jax.Array | int,
) -> jax.Array:
    """Attends from the T tokens of a step to its prompt, to its path so far and to the step itself.

    The prompt part is one matrix product over all rows of a prompt. The path so far consists of the
    valid columns before `end` of the cache's suffix, which the function reads block by block.
    Within the step, attention is causal.

    Args:
      q_PMTNH, k_PMTKH, v_PMTKH: queries, keys and values of the step.
      layer: index of the layer to read.
      end: columns of the suffix in use.

    Returns:
      `[P, M, T, N, H]`, with the H of the values.
    """
    P, M, T, N, H = q_PMTNH.shape
    K, columns = cache.suffix_k.shape[3], cache.suffix_k.shape[-1]
    q_PMTKQH = (q_PMTNH * H**-0.5).astype(q_PMTNH.dtype).reshape(P, M, T, K, N // K, H)

    def of_layer(stacked):
        return jax.lax.dynamic_index_in_dim(stacked, layer, 0, keepdims=False)

    def add(state, scores_PMKTQC, valid, values, equation):
        scores = jnp.where(valid, scores_PMKTQC, MASK_VALUE)
        return running_softmax(
            state,
            scores,
            lambda weights: float32_product(equation, weights.astype(values.dtype), values),
        )

    state = add(
        None,
        float32_product("pmtkqh,pkhs->pmktqs", q_PMTKQH, of_layer(cache.prefix_k)),
        cache.prefix_valid[:, None, None, None, None],
        of_layer(cache.prefix_v),
        "pmktqs,pksh->pmktqh",
    )
    state = add(
        state,
        float32_product("pmtkqh,pmskh->pmktqs", q_PMTKQH, k_PMTKH),
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
        scores = float32_product("pmtkqh,pmkhc->pmktqc", q_PMTKQH, k)
        return add(state, scores, valid_PMC[:, :, None, None, None], v, "pmktqc,pmkch->pmktqh")

    _, total, out = jax.lax.fori_loop(0, (end + size - 1) // size, add_block, state)
    out_PMKTQH = (out / total[..., None]).astype(q_PMTNH.dtype)
    return out_PMKTQH.transpose(0, 1, 3, 2, 4, 5).reshape(P, M, T, N, -1)
