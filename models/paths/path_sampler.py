"""The compiled sampler for searches: forks partial completions and extends each by one step.

It serves beam search, DVTS, lookahead and tree search over reasoning steps (arXiv:2408.03314). It
decodes tokens as `models.decoding.sampler` does. `models.paths.path_pool` stores the keys and
values, so that no prefix is computed twice. `models.paths.path_scorer` scores the same paths with a
verifier.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel, LoopWeights
from models.decoding.cached import decode as decode_token
from models.decoding.compilations import count_programs
from models.decoding.sampling import SamplingParams, draw
from models.layers.kv_cache import live_blocks
from models.paths import path_pool
from models.paths.path_pool import PathPool, PoolView
from models.paths.places import ROOT, Layout, at, check_places, check_sizes, pad_prompts, put
from models.tokens.stopping import TokenAutomaton

FINISH_REASONS = ("", "delimiter", "stop", "step_length", "length")
RUNNING, DELIMITER, STOP, STEP_LENGTH, LENGTH = range(5)


@dataclasses.dataclass(frozen=True)
class Steps:
    """One step of each of P x M rows, as NumPy arrays; rows without work have length 0.

    Attributes:
      tokens: int32 `[P, M, T]`, the delimiter or stop token included, zeros after the end.
      logprobs: float32 `[P, M, T]`, under softmax(logits / temperature), before top-k/top-p/min-p;
        at temperature 0 under softmax(logits).
      lengths: int32 `[P, M]`, number of tokens of each step.
      finish: int32 `[P, M]`, why each step ended, as an index into `FINISH_REASONS`. After STOP or
        LENGTH the path has ended. If the W-th token of a path also completes a delimiter, the
        reason is LENGTH.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    lengths: np.ndarray
    finish: np.ndarray


@dataclasses.dataclass(frozen=True)
class PathState:
    """The paths of P prompts, in R places for each prompt.

    A state is immutable: an extension returns a new one. Column `ROOT` of the arrays belongs to the
    bare prompt; see `Places`.

    Attributes:
      pool: keys and values of all tokens but the last of each path.
      token: int32 `[P, R + 1]`, the last token of each path.
      reading: int32 `[P, R + 1]`, state of the delimiter's automaton.
      ended: bool `[P, R + 1]`, whether the path has ended by STOP or LENGTH.
    """

    pool: PathPool
    token: np.ndarray
    reading: np.ndarray
    ended: np.ndarray


class Draws(NamedTuple):
    """The inputs of a step's random draws: key, number of the extension and sampling knobs."""

    key: jax.Array
    number: Any
    knobs: dict[str, Any]


class Endings(NamedTuple):
    """The conditions that end a step.

    Attributes:
      stop_table: bool `[V]`, whether a token ends its path.
      automaton: transitions of the delimiter's automaton, or None.
    """

    stop_table: jax.Array
    automaton: jax.Array | None


class PathSampler:
    """Samples steps from one model, compiled for one number of prompts, places, rows and tokens.

    Attributes:
      model: the model that it samples from.
      prompts: P, most prompts of a state.
      capacity: R, places for the paths of each prompt.
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
        """Creates a sampler; compilation happens at the first calls.

        Args:
          stop_ids: a path ends after any of these tokens.
          delimiter: a step ends once its text contains one of this automaton's strings.

        Raises:
          ValueError: a size below one, or a stop id outside the vocabulary.
        """
        check_sizes(prompts=prompts)
        step_tokens = min(step_tokens, max_new_tokens)
        self._layout = Layout(capacity, width, max_new_tokens, step_tokens)
        vocab = model.config.vocab_size
        if bad := [i for i in stop_ids if not 0 <= i < vocab]:
            raise ValueError(
                f"stop id {bad[0]} is outside the model's vocabulary of {vocab} tokens; is it from"
                " another tokenizer?"
            )
        self.model, self.prompts, self.capacity, self.width = model, prompts, capacity, width
        self.max_new_tokens, self.step_tokens = max_new_tokens, step_tokens
        # These go to the device once instead of with every step.
        self._endings = Endings(
            stop_table=jnp.asarray(np.isin(np.arange(vocab), list(stop_ids))),
            automaton=jnp.asarray(delimiter.transitions) if delimiter else None,
        )
        self._start = jax.jit(functools.partial(path_pool.prefill, model, self._layout))
        self._prepare = jax.jit(lambda params: model.for_loop(params, model.config.max_length))
        self._extend = jax.jit(self._steps, static_argnames="filtered")
        self._extend_donated = jax.jit(
            self._steps, static_argnames="filtered", donate_argnames="stored"
        )

    @property
    def compilations(self) -> int:
        """The number of programs compiled so far.

        There are two for each bucket of prompt length, or three if some calls of `extend` donate
        their state and others do not.
        """
        return count_programs(self._start, self._extend, self._extend_donated)

    def prepare(self, params: Any) -> LoopWeights:
        """Returns parameters in the form that `extend` reads fastest.

        Given plain parameters, `extend` converts them again for every step.
        """
        return self._prepare(params)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathState:
        """Reads each of up to P prompts once and returns a state without paths.

        Raises:
          ValueError: see `places.pad_prompts`.
        """
        tokens, lengths = pad_prompts(
            prompt_ids, self.prompts, self.max_new_tokens, self.model.config
        )
        # The last prompt token is a path's first input, so the first draw is no special case.
        cached = np.maximum(lengths - 1, 0)
        pool = path_pool.new_pool(self._start, params, tokens, lengths, cached, self._layout)
        token = np.zeros(pool.places.lengths.shape, np.int32)
        token[:, ROOT] = tokens[np.arange(self.prompts), cached]
        return PathState(pool, token, np.zeros_like(token), np.zeros(token.shape, bool))

    def extend(
        self,
        params: Any | LoopWeights,
        state: PathState,
        parents: Any,
        into: Any,
        key: jax.Array,
        sampling: SamplingParams = SamplingParams(),
        *,
        number: int = 0,
        donate: bool = False,
    ) -> tuple[PathState, Steps]:
        """Continues each given path by one step.

        A step ends with the delimiter, with a stop token, after T tokens, or when its path has W
        tokens. All parents are read before any place is written. The random numbers of row i of
        prompt p depend on `key`, `number`, p, i and the number of tokens before the step alone.

        Args:
          params: parameters of the model, or what `prepare` made of them.
          parents: int `[P, M]`, the place of the path that each row continues, or `ROOT` for the
            bare prompt. A place that occurs several times is forked.
          into: int `[P, M]`, the place that stores the longer path; -1 for a row without work.
          key: random key.
          sampling: how tokens are drawn.
          number: number of this extension, if several use the same key.
          donate: whether the new state takes over the memory of `state`, which then is lost.

        Returns:
          The new state, and the steps.

        Raises:
          ValueError: see `places.check_places`.
        """
        known = state.pool.places.lengths
        parents, into = check_places(known, state.ended, parents, into, self.width)
        used = into >= 0
        lengths = np.where(used, at(known, parents), 0)
        # One array instead of four, because each array costs a transfer to the device.
        rows = np.stack([used, lengths, at(state.token, parents), at(state.reading, parents)])
        pool, view = state.pool.fork(parents, into)
        extend = self._extend_donated if donate else self._extend
        draws = Draws(key, np.int32(number), sampling.knobs)
        stored, out = extend(
            params, pool.paths, view, rows, draws, self._endings, filtered=sampling.filtered
        )
        tokens, logprobs, finish, reading, new = _unpacked(np.asarray(out), self.step_tokens)
        steps = Steps(tokens, logprobs, new, finish)
        last = np.maximum(new - 1, 0)[..., None]
        # After a delimiter, the next step starts to look for a new one.
        reading = np.where(finish == DELIMITER, 0, reading)
        state = PathState(
            pool=pool.extended(stored, into, lengths, new),
            token=put(state.token, into, np.take_along_axis(steps.tokens, last, -1)[..., 0]),
            reading=put(state.reading, into, reading),
            ended=put(state.ended, into, (finish == STOP) | (finish == LENGTH)),
        )
        return state, steps

    def _steps(
        self, params, stored, view: PoolView, rows, draws: Draws, endings: Endings, *, filtered
    ):
        """The compiled part of `extend`.

        Args:
          stored: `PathPool.paths` from before the fork.
          rows: int32 `[4, P, M]`: whether a row is used, the number of its tokens so far, its last
            token, and the state of the delimiter's automaton.

        Returns:
          `PathPool.paths` with the steps, and an array for `_unpacked`.
        """
        P, M, T, W = self.prompts, self.width, self.step_tokens, self.max_new_tokens
        used, lengths, token, reading = rows
        used = used > 0
        cache = path_pool.open_rows(self._layout, view, stored)
        columns = view.valid.shape[-1]
        if not isinstance(params, LoopWeights):
            params = self.model.for_loop(params, view.prefix[0].shape[-1] + W)
        key, automaton = draws.key, endings.automaton
        # Each row has W uniform numbers, one for each token of a path; this step uses T of them.
        uniform = jax.random.uniform(jax.random.fold_in(key, draws.number), (P * M, W))
        drawn = lengths.reshape(-1, 1) + jnp.arange(T)
        uniform = jnp.take_along_axis(uniform, jnp.minimum(drawn, W - 1), 1)

        def decode(carry):
            t, cache, token, reading, finish, out = carry
            active = used & (finish == RUNNING)
            positions = view.prefix_lengths[:, None] + lengths + t
            logits, cache = decode_token(
                self.model, params, cache, token, positions, view.end + t, active,
                live=live_blocks(columns, 0, view.end + t),
            )  # fmt: skip
            token, logprob = draw(logits, uniform[:, t], draws.knobs, filtered)
            token, logprob = token.reshape(P, M), logprob.reshape(P, M)
            reason = jnp.where(t + 1 >= T, STEP_LENGTH, RUNNING)
            if automaton is not None:
                read = automaton[reading, token].astype(jnp.int32)
                reading = jnp.where(active, read, reading)
                reason = jnp.where(read == automaton.shape[0] - 1, DELIMITER, reason)
            reason = jnp.where(lengths + t + 1 >= W, LENGTH, reason)
            reason = jnp.where(endings.stop_table[token], STOP, reason)

            def write(columns, value):
                value = jnp.where(active, value, 0)[..., None]
                return jax.lax.dynamic_update_slice(columns, value, (0, 0, t))

            out = {
                "tokens": write(out["tokens"], token),
                "logprobs": write(out["logprobs"], logprob),
                "lengths": out["lengths"] + active,
            }
            return t + 1, cache, token, reading, jnp.where(active, reason, finish), out

        def unfinished(carry):
            finish = carry[4]
            return (used & (finish == RUNNING)).any()

        out = {
            "tokens": jnp.zeros((P, M, T), jnp.int32),
            "logprobs": jnp.zeros((P, M, T), jnp.float32),
            "lengths": jnp.zeros((P, M), jnp.int32),
        }
        carry = (jnp.int32(0), cache, token, reading, jnp.zeros((P, M), jnp.int32), out)
        _, cache, _, reading, finish, out = jax.lax.while_loop(unfinished, decode, carry)
        stored = path_pool.close_rows(self._layout, view, cache, stored)
        return stored, _packed(out, finish, reading)


def _packed(out, finish, reading):
    """Packs a step into one int32 array `[P, M, 2 T + 3]`, since each array costs a transfer."""
    logprobs = jax.lax.bitcast_convert_type(out["logprobs"], jnp.int32)
    numbers = jnp.stack([finish, reading, out["lengths"]], -1)
    return jnp.concatenate([out["tokens"], logprobs, numbers], -1)


def _unpacked(packed: np.ndarray, step_tokens: int) -> tuple[np.ndarray, ...]:
    """Undoes `_packed`: tokens and log-probs `[P, M, T]`; finish, reading and lengths `[P, M]`."""
    tokens, logprobs, numbers = np.split(packed, [step_tokens, 2 * step_tokens], -1)
    finish, reading, lengths = np.moveaxis(numbers, -1, 0)
    return tokens, np.ascontiguousarray(logprobs).view(np.float32), finish, reading, lengths
