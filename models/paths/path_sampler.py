"""Search over partial completions, compiled: paths are forked by index and extended step by step.

What beam search, DVTS, lookahead and tree search over reasoning steps ask of a sampler
(arXiv:2408.03314). A token is decoded as in `models.decoding.sampler`; how keys and values are kept, so
that no prefix is computed twice, is told in `models.paths.path_pool`. `models.paths.path_scorer` is the same
for a verifier.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel, LoopWeights
from models.decoding.cached import decode as decode_token
from models.decoding.sampler import draw
from models.decoding.sampling import SamplingParams
from models.layers.kv_cache import live_blocks
from models.paths import path_pool
from models.paths.path_pool import ROOT, PathPool, at, put
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
        path_pool.check_sizes(prompts=prompts)
        step_tokens = min(step_tokens, max_new_tokens)
        self._layout = path_pool.Layout(capacity, width, max_new_tokens, step_tokens)
        vocab = model.config.vocab_size
        if bad := [i for i in stop_ids if not 0 <= i < vocab]:
            raise ValueError(f"stop id {bad[0]} is outside the vocabulary of {vocab} tokens")
        self.model, self.prompts, self.capacity, self.width = model, prompts, capacity, width
        self.max_new_tokens, self.step_tokens = max_new_tokens, step_tokens
        # On the device once, not with every step.
        self._stop_table = jnp.asarray(np.isin(np.arange(vocab), list(stop_ids)))
        self._automaton = jnp.asarray(delimiter.transitions) if delimiter else None
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
        jitted = (self._start, self._extend, self._extend_donated)
        return sum(each._cache_size() for each in jitted)

    def prepare(self, params: Any) -> LoopWeights:
        """Parameters as `extend` reads them fastest; otherwise it makes them so for every step."""
        return self._prepare(params)

    def start(self, params: Any, prompt_ids: Sequence[Sequence[int]]) -> PathState:
        """Prefills each of up to P prompts, once.

        Raises:
          ValueError: see `path_pool.pad_prompts`.
        """
        tokens, lengths = path_pool.pad_prompts(
            prompt_ids, self.prompts, self.max_new_tokens, self.model.config
        )
        # The last prompt token is a path's first input, so the first draw is no special case.
        cached = np.maximum(lengths - 1, 0)
        pool = path_pool.new_pool(self._start, params, tokens, lengths, cached, self._layout)
        token = np.zeros(pool.lengths.shape, np.int32)
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
          ValueError: see `path_pool.check_places`.
        """
        pool = state.pool
        parents, into = path_pool.check_places(
            pool.lengths, state.ended, parents, into, self.width
        )
        used = into >= 0
        lengths = np.where(used, at(pool.lengths, parents), 0)
        told = np.stack([used, lengths, at(state.token, parents), at(state.reading, parents)])
        pool, moves = pool.fork(parents, into)
        extend = self._extend_donated if donate else self._extend
        stored, out = extend(
            params, pool.prefix, pool.prefix_lengths, stored=pool.paths, moves=moves,
            valid=pool.valid, end=np.int32(pool.end), told=told, knobs=sampling.knobs,
            stop_table=self._stop_table, automaton=self._automaton, key=key,
            number=np.int32(number), filtered=sampling.filtered,
        )  # fmt: skip
        out, T = np.asarray(out), self.step_tokens
        # Log-probabilities as their bits, and single numbers behind them; see `_steps`.
        logprobs = np.ascontiguousarray(out[..., T:-3]).view(np.float32)
        finish, reading, new = out[..., -3], out[..., -2], out[..., -1]
        steps = Steps(out[..., :T], logprobs, new, finish)
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
        self, params, prefix, prefix_lengths, *, stored, moves, valid, end, told, knobs, stop_table,
        automaton, key, number, filtered,
    ):  # fmt: skip
        P, M, T, W = self.prompts, self.width, self.step_tokens, self.max_new_tokens
        used, lengths, token, reading = told
        used = used > 0
        cache = path_pool.open_rows(
            self._layout, prefix, prefix_lengths, stored, moves, valid, end
        )
        columns = valid.shape[-1]
        if not isinstance(params, LoopWeights):
            params = self.model.for_loop(params, prefix[0].shape[-1] + W)
        # Of a row's W draws, those of the tokens that this step may have.
        uniform = jax.random.uniform(jax.random.fold_in(key, number), (P * M, W))
        drawn = lengths.reshape(-1, 1) + jnp.arange(T)
        uniform = jnp.take_along_axis(uniform, jnp.minimum(drawn, W - 1), 1)

        def decode(carry):
            t, cache, token, reading, finish, out = carry
            active = used & (finish == RUNNING)
            positions = prefix_lengths[:, None] + lengths + t
            logits, cache = decode_token(
                self.model, params, cache, token, positions, end + t, active,
                live=live_blocks(columns, 0, end + t),
            )  # fmt: skip
            token, logprob = draw(logits, uniform[:, t], knobs, filtered)
            token, logprob = token.reshape(P, M), logprob.reshape(P, M)
            reason = jnp.where(t + 1 >= T, STEP_LENGTH, RUNNING)
            if automaton is not None:
                read = automaton[reading, token].astype(jnp.int32)
                reading = jnp.where(active, read, reading)
                reason = jnp.where(read == automaton.shape[0] - 1, DELIMITER, reason)
            reason = jnp.where(lengths + t + 1 >= W, LENGTH, reason)
            reason = jnp.where(stop_table[token], STOP, reason)

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
        # One array, since each costs the host a transfer of its own.
        logprobs = jax.lax.bitcast_convert_type(out["logprobs"], jnp.int32)
        told = jnp.stack([finish, reading, out["lengths"]], -1)
        out = jnp.concatenate([out["tokens"], logprobs, told], -1)
        return path_pool.close_rows(self._layout, cache, stored, moves, end), out

