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

from models import path_pool
from models.attention import MASK_VALUE, KVCache
from models.path_pool import PathPool, at
from models.sampler import bucket
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
    """

    def __init__(
        self, model: ScalarModel, *, prompts: int, capacity: int, width: int, max_new_tokens: int
    ):
        path_pool.check_sizes(
            prompts=prompts, capacity=capacity, width=width, max_new_tokens=max_new_tokens
        )
        self.model, self.prompts, self.capacity, self.width = model, prompts, capacity, width
        self.max_new_tokens = max_new_tokens
        prefill = functools.partial(path_pool.prefill, model, capacity, max_new_tokens)
        self._start = jax.jit(prefill)
        self._extend = jax.jit(self._values)
        self._extend_donated = jax.jit(self._values, donate_argnames="suffix")

    @property
    def compilations(self) -> int:
        """Programs compiled so far: one for each bucket of prompt length, and up to four for each
        with each bucket of step length."""
        jitted = (self._start, self._extend, self._extend_donated)
        return sum(each._cache_size() for each in jitted)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathPool:
        """Reads each of up to P prompts, once.

        Raises:
          ValueError: see `path_pool.pad_prompts`.
        """
        tokens, lengths = path_pool.pad_prompts(
            prompt_ids, self.prompts, self.max_new_tokens, self.model.config
        )
        return path_pool.new_pool(self._start, params, tokens, lengths, lengths, self.capacity)

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
            `max_new_tokens`; see `path_pool.check_places` for the others.
        """
        never = np.zeros(pool.lengths.shape, bool)
        parents, into = path_pool.check_places(pool.lengths, never, parents, into, self.width)
        used = into >= 0
        tokens, lengths = np.asarray(tokens, np.int32), np.where(used, lengths, 0)
        if (bad := used & ((lengths < 1) | (lengths > tokens.shape[2]))).any():
            raise ValueError(
                f"a step has {lengths[bad][0]} tokens; it must have 1..{tokens.shape[2]}"
            )
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= self.model.config.vocab_size:
            raise ValueError(
                "a step holds a token outside the verifier's vocabulary of "
                f"{self.model.config.vocab_size}; was it sampled with another tokenizer?"
            )
        past = np.where(used, at(pool.lengths, parents), 0)
        if (past + lengths).max() > self.max_new_tokens:
            raise ValueError(
                f"a path of {(past + lengths).max()} tokens exceeds max_new_tokens="
                f"{self.max_new_tokens}"
            )
        # Steps of similar lengths share a program: T columns of a row, N tokens of a prompt.
        columns = bucket(int(lengths.max(initial=1)), least=8)
        most = _quarters(int(lengths.sum(1).max()), self.width * columns)
        prompt, row, number = np.nonzero(np.arange(columns) < lengths[..., None])
        # Side by side, so that rows of fewer tokens cost less.
        ends = np.cumsum(lengths, 1)
        unpack = np.minimum((ends - lengths)[..., None] + np.arange(columns), most - 1)
        packed = unpack[prompt, row, number]
        read = np.zeros((3, self.prompts, most), np.int32)
        read[0, prompt, packed] = tokens[prompt, row, number]
        read[1, prompt, packed] = (pool.prefix_lengths[:, None] + past)[prompt, row] + number
        read[2, prompt, packed] = row * columns + number
        extend = self._extend_donated if donate else self._extend
        suffix, values = extend(
            params, pool.prefix, pool.prefix_lengths, suffix=pool.suffix,
            rows=np.stack([parents, into, past]), read=read, unpack=unpack,
        )  # fmt: skip
        of_tokens = np.full(tokens.shape, np.nan, np.float32)
        of_tokens[prompt, row, number] = jax.device_get(values)[prompt, packed]
        last = np.take_along_axis(of_tokens, np.maximum(lengths - 1, 0)[..., None], -1)[..., 0]
        return pool.replace(suffix, into, past + lengths), StepValues(last, of_tokens)

    def _values(self, params, prefix, prefix_lengths, *, suffix, rows, read, unpack):
        P, M, T = unpack.shape
        parents, into, lengths = rows
        tokens, positions, pack = read
        cache = path_pool.open_rows(prefix, prefix_lengths, suffix, parents, lengths, T)

        def to_rows(x_PNKH):
            """Packed tokens as rows `[P, M, T, K, H]`; what is behind a row's end means nothing."""
            index = unpack.reshape(P, M * T, 1, 1)
            return jnp.take_along_axis(x_PNKH, index, 1).reshape(P, M, T, *x_PNKH.shape[2:])

        def attend(q, k, v, cache, layer):
            q, k, v = to_rows(q), to_rows(k)[None], to_rows(v)[None]
            cache = dataclasses.replace(
                cache,
                suffix_k=jax.lax.dynamic_update_slice(
                    cache.suffix_k, k.transpose(0, 1, 2, 4, 5, 3), (layer, 0, 0, 0, 0, 0)
                ),
                suffix_v=jax.lax.dynamic_update_slice(
                    cache.suffix_v, v.transpose(0, 1, 2, 4, 3, 5), (layer, 0, 0, 0, 0, 0)
                ),
            )
            out = step_attention(q, cache, layer)
            out = out.reshape(P, M * T, *out.shape[3:])
            return jnp.take_along_axis(out, pack[..., None, None], 1), cache

        hidden, cache = self.model.bind(params).hidden(tokens, positions, attend, cache)
        values = self.model.values(params, hidden)
        return path_pool.close_rows(cache, suffix, into, lengths), values


def _quarters(size: int, most: int) -> int:
    """`size` rounded up to a quarter of `most`, and no finer than 64."""
    quarter = max(64, -(-most // 4))
    return min(most, quarter * -(-size // quarter))


def step_attention(q_PMTNH: jax.Array, cache: KVCache, layer: jax.Array) -> jax.Array:
    """T queries of each path against its prompt, its past and its step: `[P, M, T, N, H]`.

    The step's keys and values are the first T columns of the suffix, causal among themselves;
    `suffix_valid` tells which of those behind hold tokens. The prompt part is one matrix product
    over all rows of a prompt.
    """
    P, M, T, N, H = q_PMTNH.shape

    def of_layer(stacked):
        return jax.lax.dynamic_index_in_dim(stacked, layer, 0, keepdims=False)

    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    prefix_k, prefix_v, suffix_k, suffix_v = map(
        of_layer, (cache.prefix_k, cache.prefix_v, cache.suffix_k, cache.suffix_v)
    )
    K, columns = suffix_k.shape[2], suffix_k.shape[-1]
    q = (q_PMTNH * H**-0.5).astype(q_PMTNH.dtype).reshape(P, M, T, K, N // K, H)
    # R = N / K query heads for each key head; S columns of the prompt, C of the path.
    prefix_PKMTRS = product("pmtkrh,pkhs->pkmtrs", q, prefix_k)
    suffix_PKMTRC = product("pmtkrh,pmkhc->pkmtrc", q, suffix_k)
    column = jnp.arange(columns)
    causal = (column < T) & (column <= jnp.arange(T)[:, None])
    seen_PMTC = cache.suffix_valid[:, :, None] | causal
    scores = jnp.concatenate(
        [
            jnp.where(cache.prefix_valid[:, None, None, None, None], prefix_PKMTRS, MASK_VALUE),
            jnp.where(seen_PMTC[:, None, :, :, None], suffix_PKMTRC, MASK_VALUE),
        ],
        -1,
    )
    weights = jax.nn.softmax(scores, -1).astype(q.dtype)
    out = product("pkmtrs,pksh->pmtkrh", weights[..., :-columns], prefix_v)
    out += product("pkmtrc,pmkch->pmtkrh", weights[..., -columns:], suffix_v)
    return out.astype(q.dtype).reshape(P, M, T, N, -1)
