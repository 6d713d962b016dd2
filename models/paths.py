"""Search over partial completions, compiled: paths are forked by index and extended step by step.

What beam search, DVTS, lookahead and tree search over reasoning steps ask of a sampler
(arXiv:2408.03314). A token is decoded as in `models.sampler`; how keys and values are kept, so
that no prefix is computed twice, is told in `models.path_pool`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.path_pool import (
    EMPTY,
    ROOT,
    PathPool,
    check_prompts,
    close_rows,
    open_rows,
    prefill,
)
from models.sampler import SamplingParams, _bucket, _decode, draw
from models.stopping import TokenAutomaton

FINISH_REASONS = ("", "delimiter", "stop", "step_length", "length")
RUNNING, DELIMITER, STOP, STEP_LENGTH, LENGTH = range(5)


@dataclasses.dataclass(frozen=True)
class Steps:
    """One step for each of P x M rows, as NumPy arrays; inactive rows have length and finish 0.

    Attributes:
      tokens: `[P, M, T]`, the delimiter or stop token included, zeros after the end.
      logprobs: `[P, M, T]`, under softmax(logits / temperature), before top-k/top-p/min-p; at
        temperature 0 under softmax(logits).
      lengths: `[P, M]`, number of tokens.
      finish: `[P, M]`, index into `FINISH_REASONS`. After STOP or LENGTH a path has ended.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    lengths: np.ndarray
    finish: np.ndarray


@dataclasses.dataclass(frozen=True)
class PathState:
    """Paths of P prompts in R places each. Immutable: an old state stays what it was.

    Attributes:
      pool: keys and values.
      token: `[P, R + 1]`, the last token of each path, whose key is yet to be made.
      automaton: `[P, R + 1]`, how much of the delimiter has been read.
      ended: `[P, R + 1]` bool, paths that finished by STOP or LENGTH.
    """

    pool: PathPool
    token: np.ndarray
    automaton: np.ndarray
    ended: np.ndarray


class PathSampler:
    """Compiles stepwise sampling for one model and one shape of work.

    Attributes:
      prompts: P, most prompts of a state.
      capacity: R, places for paths of each prompt.
      width: M, rows of each prompt that one call extends.
      max_new_tokens: W, most tokens of a path.
      step_tokens: T, most tokens of a step.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        prompts: int,
        capacity: int,
        width: int,
        max_new_tokens: int,
        step_tokens: int,
        stop_ids: Sequence[int],
        delimiter: TokenAutomaton | None,
    ):
        check_sizes(
            prompts=prompts, capacity=capacity, width=width, max_new_tokens=max_new_tokens,
            step_tokens=step_tokens,
        )  # fmt: skip
        vocab = model.config.vocab_size
        if bad := [i for i in stop_ids if not 0 <= i < vocab]:
            raise ValueError(f"stop id {bad[0]} is outside the vocabulary of {vocab} tokens")
        self.model, self.prompts, self.capacity, self.width = model, prompts, capacity, width
        self.max_new_tokens, self.step_tokens = max_new_tokens, min(step_tokens, max_new_tokens)
        self._stop_table = jnp.asarray(np.isin(np.arange(vocab), list(stop_ids)))
        self._automaton = jnp.asarray(delimiter.transitions) if delimiter else None
        self._start = jax.jit(functools.partial(prefill, model), static_argnums=(3, 4))
        static = ("past", "filtered")
        self._extend = jax.jit(self._steps, static_argnames=static)
        self._extend_donated = jax.jit(self._steps, static_argnames=static, donate_argnums=3)

    @property
    def compilations(self) -> int:
        """Programs compiled so far: two per bucket of prompt length."""
        jitted = (self._start, self._extend, self._extend_donated)
        return sum(each._cache_size() for each in jitted)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathState:
        """Prefills each of up to P prompts, once.

        Raises:
          ValueError: no or too many prompts, an empty one, a token outside the vocabulary, or no
            room for `max_new_tokens` in the model's context.
        """
        check_prompts(prompt_ids, self.prompts, self.max_new_tokens, self.model.config)
        tokens, lengths = pad_prompts(prompt_ids, self.prompts)
        # The last prompt token is a path's first input, so the first draw is no special case.
        columns = np.maximum(lengths - 1, 0)
        prefix, suffix = self._start(params, tokens, columns, self.capacity, self.max_new_tokens)
        paths = (self.prompts, self.capacity + 1)
        token = np.zeros(paths, np.int32)
        token[:, ROOT] = tokens[np.arange(self.prompts), columns]
        pool = PathPool(prefix, suffix, columns, empty_places(paths, lengths))
        return PathState(pool, token, np.zeros(paths, np.int32), np.zeros(paths, bool))

    def extend(
        self,
        params: Any,
        state: PathState,
        parents: np.ndarray,
        into: np.ndarray,
        key: jax.Array,
        sampling: SamplingParams = SamplingParams(),
        donate: bool = False,
    ) -> tuple[PathState, Steps]:
        """Continues paths by one step each: up to the delimiter, a stop token, T or W tokens.

        All parents are read before any place is written. What row i of prompt p draws depends on
        `key`, p, i and the number of tokens before it alone.

        Args:
          parents: `[P, M]`, the place of the path to continue, or `ROOT` for the bare prompt. The
            same one may occur many times: a fork.
          into: `[P, M]`, the place that the longer path is stored in; -1 for a row without work.
          donate: give up `state`, whose memory the new one takes over.

        Raises:
          ValueError: wrong shapes, a place that holds no path or one that has ended, or two paths
            stored in one place.
        """
        parents, into = np.asarray(parents, np.int32), np.asarray(into, np.int32)
        pool = state.pool
        pool.check(parents, into, self.width)
        used = into >= 0
        if (ended := used & pool.of(state.ended, parents)).any():
            prompt, row = np.argwhere(ended)[0]
            raise ValueError(
                f"the path in place {parents[prompt, row]} of prompt {prompt} has ended; it cannot "
                "be continued"
            )
        lengths = np.where(used, pool.of(pool.lengths, parents), 0)
        rows = np.stack(
            [parents, into, lengths, pool.of(state.token, parents),
             pool.of(state.automaton, parents)]
        )  # fmt: skip
        past = past_columns(int(lengths.max()), self.max_new_tokens)
        extend = self._extend_donated if donate else self._extend
        suffix, out = extend(
            params, pool.prefix, pool.prefix_lengths, pool.suffix, rows, knobs(sampling),
            self._stop_table, self._automaton, key, past=past, filtered=sampling.filtered,
        )  # fmt: skip
        out = jax.device_get(out)
        finish = out["finish"]
        put = functools.partial(put_numbers, into=into)
        last = np.take_along_axis(out["tokens"], np.maximum(out["lengths"] - 1, 0)[..., None], -1)
        new = PathState(
            pool=dataclasses.replace(
                pool, suffix=suffix, lengths=put(pool.lengths, lengths + out["lengths"])
            ),
            token=put(state.token, last[..., 0]),
            automaton=put(state.automaton, np.where(finish == DELIMITER, 0, out["automaton"])),
            ended=put(state.ended, (finish == STOP) | (finish == LENGTH)),
        )
        return new, Steps(out["tokens"], out["logprobs"], out["lengths"], finish)

    def _steps(
        self, params, prefix, prefix_lengths, suffix, rows, knobs, stop_table, automaton, key,
        *, past, filtered,
    ):  # fmt: skip
        P, M, T, W = self.prompts, self.width, self.step_tokens, self.max_new_tokens
        parents, into, lengths, token, reading = rows
        used = into >= 0
        cache = open_rows(prefix, prefix_lengths, suffix, parents, lengths, past, T)
        number = (lengths[..., None] + jnp.arange(T)).reshape(P * M, T)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(P * M))
        of_row = jax.vmap(lambda key, n: jax.random.uniform(jax.random.fold_in(key, n)), (None, 0))
        uniform_T = jax.vmap(of_row)(keys, number).T

        def decode(carry):
            t, cache, token, reading, finish, out = carry
            active = used & (finish == RUNNING)
            positions = prefix_lengths[:, None] + lengths + t
            logits, cache = _decode(
                self.model, params, cache, token, positions, past + t, active
            )
            drawn, logprob = draw(logits, uniform_T[t], knobs, filtered)
            drawn, logprob = drawn.reshape(P, M), logprob.reshape(P, M)
            reason = jnp.where(t + 1 >= T, STEP_LENGTH, RUNNING)
            if automaton is not None:
                reading = jnp.where(active, automaton[reading, drawn].astype(jnp.int32), reading)
                reason = jnp.where(reading == automaton.shape[0] - 1, DELIMITER, reason)
            reason = jnp.where(lengths + t + 1 >= W, LENGTH, reason)
            reason = jnp.where(stop_table[drawn], STOP, reason)

            def write(columns, value):
                value = jnp.where(active, value, 0)[..., None]
                return jax.lax.dynamic_update_slice(columns, value, (0, 0, t))

            out = {
                "tokens": write(out["tokens"], drawn),
                "logprobs": write(out["logprobs"], logprob),
                "lengths": out["lengths"] + active,
            }
            return t + 1, cache, drawn, reading, jnp.where(active, reason, finish), out

        def unfinished(carry):
            return (used & (carry[4] == RUNNING)).any()

        out = {
            "tokens": jnp.zeros((P, M, T), jnp.int32),
            "logprobs": jnp.zeros((P, M, T), jnp.float32),
            "lengths": jnp.zeros((P, M), jnp.int32),
        }
        carry = (jnp.int32(0), cache, token, reading, jnp.zeros((P, M), jnp.int32), out)
        _, cache, _, reading, finish, out = jax.lax.while_loop(unfinished, decode, carry)
        suffix = close_rows(cache, suffix, into, lengths, past)
        return suffix, out | {"finish": finish, "automaton": reading}


def check_sizes(**sizes: int) -> None:
    """Raises `ValueError` for a size below one."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def pad_prompts(prompts: Sequence[Sequence[int]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` rows of tokens, as wide as the longest prompt's bucket, and their lengths."""
    tokens = np.zeros((count, _bucket(max(len(p) for p in prompts), least=16)), np.int32)
    lengths = np.zeros(count, np.int32)
    for i, prompt in enumerate(prompts):
        tokens[i, : len(prompt)] = prompt
        lengths[i] = len(prompt)
    return tokens, lengths


def empty_places(shape: tuple[int, int], prompt_lengths: np.ndarray) -> np.ndarray:
    """`PathPool.lengths` of a new pool."""
    lengths = np.full(shape, EMPTY, np.int32)
    lengths[:, ROOT] = np.where(prompt_lengths > 0, 0, EMPTY)
    return lengths


def past_columns(longest: int, most: int) -> int:
    return most


def put_numbers(numbers: np.ndarray, values: np.ndarray, into: np.ndarray) -> np.ndarray:
    """A copy of `numbers [P, R + 1]` with `values [P, M]` at the places `into`; -1 is nowhere."""
    numbers = numbers.copy()
    prompt, row = np.nonzero(into >= 0)
    numbers[prompt, into[prompt, row]] = values[prompt, row]
    return numbers


def knobs(sampling: SamplingParams) -> dict[str, Any]:
    return {
        "temperature": np.float32(sampling.temperature),
        "top_k": np.int32(sampling.top_k),
        "top_p": np.float32(sampling.top_p),
        "min_p": np.float32(sampling.min_p),
    }
