"""Search over partial completions, compiled: paths are forked by index and extended step by step.

What beam search, DVTS, lookahead and tree search over reasoning steps ask of a sampler
(arXiv:2408.03314). A token is decoded as in `models.decoding.sampler`. `models.paths.path_pool`
says how keys and values are kept, so that no prefix is computed twice, and
`models.paths.path_scorer` does the same for a verifier.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.compilations import count_programs
from models.decoder import LanguageModel, LoopWeights
from models.decoding.cached import decode as decode_token
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
    """One step for each of P x M rows, as NumPy arrays; rows without work have length 0.

    Attributes:
      tokens: `[P, M, T]`, the delimiter or stop token included, zeros after the end.
      logprobs: `[P, M, T]`, under softmax(logits / temperature), before top-k/top-p/min-p; at
        temperature 0 under softmax(logits).
      lengths: `[P, M]`, number of tokens.
      finish: `[P, M]`, index into `FINISH_REASONS`. After STOP or LENGTH a path has ended: where
        its W-th token ends a step too, the limit is what is told.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    lengths: np.ndarray
    finish: np.ndarray


@dataclasses.dataclass(frozen=True)
class PathState:
    """Paths of P prompts in R places each. Immutable: an old state stays what it was.

    Attributes:
      pool: keys and values, of all tokens but each path's last.
      token: `[P, R + 1]`, that last token; see `PathPool` for the shape.
      reading: `[P, R + 1]`, state of the delimiter's automaton.
      ended: `[P, R + 1]` bool, finished by STOP or LENGTH.
    """

    pool: PathPool
    token: np.ndarray
    reading: np.ndarray
    ended: np.ndarray


class Draws(NamedTuple):
    """What a step's draws depend on: the key, the number of the extension, the sampling knobs."""

    key: jax.Array
    number: Any
    knobs: dict[str, Any]


class Endings(NamedTuple):
    """What ends a step: `stop_table` bool `[V]`, and the delimiter's automaton, or None."""

    stop_table: jax.Array
    automaton: jax.Array | None


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
        check_sizes(prompts=prompts)
        step_tokens = min(step_tokens, max_new_tokens)
        self._layout = Layout(capacity, width, max_new_tokens, step_tokens)
        vocab = model.config.vocab_size
        if bad := [i for i in stop_ids if not 0 <= i < vocab]:
            raise ValueError(f"stop id {bad[0]} is outside the vocabulary of {vocab} tokens")
        self.model, self.prompts, self.capacity, self.width = model, prompts, capacity, width
        self.max_new_tokens, self.step_tokens = max_new_tokens, step_tokens
        # On the device once, not with every step.
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
        """Programs compiled so far: two for each bucket of prompt length, and a third where states
        are both kept and donated."""
        return count_programs(self._start, self._extend, self._extend_donated)

    def prepare(self, params: Any) -> LoopWeights:
        """Parameters as `extend` reads them fastest; otherwise it makes them so for every step."""
        return self._prepare(params)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathState:
        """Prefills each of up to P prompts, once.

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
        """Continues paths by a step each: up to the delimiter, a stop token, T tokens, or W of all.

        All parents are read before any place is written. What row i of prompt p draws depends on
        `key`, `number`, p, i and the number of tokens before it alone.

        Args:
          params: or what `prepare` made of them.
          parents: `[P, M]`, the place of the path to continue, or `ROOT` for the bare prompt. One
            that occurs several times is forked.
          into: `[P, M]`, the place that the longer path is stored in; -1 for a row without work.
          number: of this extension, where several are drawn with one key.
          donate: `state` is given up: the new one takes over its memory.

        Raises:
          ValueError: see `places.check_places`.
        """
        known = state.pool.places.lengths
        parents, into = check_places(known, state.ended, parents, into, self.width)
        used = into >= 0
        lengths = np.where(used, at(known, parents), 0)
        # One array, since each costs a transfer of its own.
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
        # A new step looks for a delimiter of its own.
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
          stored: `PathPool.paths`, from before the fork.
          rows: `[4, P, M]`: whether a row is used, its tokens so far, the last one, and the state
            of the delimiter's automaton.

        Returns:
          `PathPool.paths` with the steps, and what `_unpacked` reads.
        """
        P, M, T, W = self.prompts, self.width, self.step_tokens, self.max_new_tokens
        used, lengths, token, reading = rows
        used = used > 0
        cache = path_pool.open_rows(self._layout, view, stored)
        columns = view.valid.shape[-1]
        if not isinstance(params, LoopWeights):
            params = self.model.for_loop(params, view.prefix[0].shape[-1] + W)
        key, automaton = draws.key, endings.automaton
        # Of a row's W draws, those of the tokens that this step may have.
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
    """A step as one int32 array `[P, M, 2 T + 3]`: each array costs the host a transfer."""
    logprobs = jax.lax.bitcast_convert_type(out["logprobs"], jnp.int32)
    numbers = jnp.stack([finish, reading, out["lengths"]], -1)
    return jnp.concatenate([out["tokens"], logprobs, numbers], -1)


def _unpacked(packed: np.ndarray, step_tokens: int) -> tuple[np.ndarray, ...]:
    """Tokens and log-probs `[P, M, T]`; finish, reading and length `[P, M]`; from `_packed`."""
    tokens, logprobs, numbers = np.split(packed, [step_tokens, 2 * step_tokens], -1)
    finish, reading, lengths = np.moveaxis(numbers, -1, 0)
    return tokens, np.ascontiguousarray(logprobs).view(np.float32), finish, reading, lengths
