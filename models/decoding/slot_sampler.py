"""The compiled sampler of a server: sequences join and leave a running batch without a recompile.

The caller owns the schedule. It fills a slot by `read` (or by `copy`, for a prompt that another
slot has read already) and `start`, and calls `advance` as long as any slot is active. Each method
runs one program whose shapes never change. `models.decoding.sampler` is faster for a queue of
prompts that is known from the start.

The tokens of a slot depend on its prompt, its settings and its seed alone. In particular they do
not depend on the slot, on the other slots, on how many steps one call takes, or on whether the
prompt was read or copied: every chunk of a prompt is read by the same program at the same offset.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.decoding.compilations import count_programs
from models.decoding.sampling import SamplingParams, draw
from models.decoding.slot_cache import copy_slot, decode_slots, empty_slots, read_chunk

# How many alternatives of a token are reported, if any are: the most that OpenAI's API allows.
ALTERNATIVES = 20
RUNNING, STOP, LENGTH, FREE = range(4)


class Alternatives(NamedTuple):
    """The likeliest tokens and their log-probs, both `[..., ALTERNATIVES]`, likeliest first."""

    tokens: np.ndarray
    logprobs: np.ndarray


class Burst(NamedTuple):
    """The tokens that one call of `advance` has drawn.

    Attributes:
      tokens: int32 `[P, steps]`; row p holds `lengths[p]` tokens.
      logprobs: float32 `[P, steps]`, under softmax(logits / temperature), before the filters.
      alternatives: of each token, if some slot asked for them.
      lengths: int32 `[P]`.
      finish: int32 `[P]`, `RUNNING`, `STOP` or `LENGTH`; `FREE` if the slot was not active.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    alternatives: Alternatives
    lengths: np.ndarray
    finish: np.ndarray


class Scored(NamedTuple):
    """The log-probs of the tokens of a prompt, given those before them.

    Attributes:
      logprobs: float32 `[C]`.
      alternatives: what the model had expected in the place of each token.
    """

    logprobs: np.ndarray
    alternatives: Alternatives


@dataclasses.dataclass
class _Rows:
    """The state of P slots, NumPy arrays `[P]` that travel with each call; the cache does not."""

    token: Any
    position: Any
    count: Any
    limit: Any
    least: Any
    ends: Any
    active: Any
    seed: Any
    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    alternatives: Any

    @classmethod
    def free(cls, slots: int) -> "_Rows":
        kinds = {
            "ends": bool, "active": bool, "alternatives": bool, "seed": np.uint32,
            "temperature": np.float32, "top_p": np.float32, "min_p": np.float32,
        }  # fmt: skip
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.zeros(slots, kinds.get(name, np.int32)) for name in names})


jax.tree_util.register_dataclass(_Rows)


class SlotSampler:
    """Samples from one model in P slots, each with room for prompt and sample.

    Attributes:
      slots: P, sequences that run at a time.
      columns: the most tokens of a sequence, its prompt included; a multiple of `chunk`.
      chunk: C, tokens of a prompt that one call of `read` takes.
      most_steps: the most decode steps of one call of `advance`.
    """

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        *,
        slots: int,
        columns: int,
        stop_ids: Sequence[int],
        visible: np.ndarray | None = None,
        chunk: int = 64,
        most_steps: int = 16,
    ):
        """Allocates the cache; `warm_up` compiles.

        Args:
          stop_ids: a sample ends after any of these tokens, unless `start` says otherwise.
          visible: bool `[V]`, the tokens that a sample may begin with if `start` asks for `least`
            visible tokens; by default all that do not end a sample.
          columns: is rounded up to a multiple of `chunk`.

        Raises:
          ValueError: a size below one, or a stop id outside the vocabulary.
        """
        sizes = {"slots": slots, "columns": columns, "chunk": chunk, "most_steps": most_steps}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        vocab = model.config.vocab_size
        if bad := [i for i in stop_ids if not 0 <= i < vocab]:
            raise ValueError(
                f"stop id {bad[0]} is outside the model's vocabulary of {vocab} tokens; is it from"
                " another tokenizer?"
            )
        self.model, self.slots, self.chunk, self.most_steps = model, slots, chunk, most_steps
        self.columns = -(-columns // chunk) * chunk
        self._stops = np.isin(np.arange(vocab), list(stop_ids))
        self._hidden_start = self._stops if visible is None else self._stops | ~visible
        self._rows = _Rows.free(slots)
        self._for_loop = jax.jit(lambda params: model.for_loop(params, self.columns))
        self._params = self._for_loop(params)
        self._cache = jax.jit(lambda: empty_slots(model.config, slots, self.columns))()
        self._read = jax.jit(self._read_program, donate_argnums=1)
        self._score = jax.jit(self._score_program, donate_argnums=1)
        # A function of its own, so that `compilations` counts no other sampler's programs.
        self._copy = jax.jit(lambda *arguments: copy_slot(*arguments), donate_argnums=0)
        self._advance = jax.jit(self._advance_program, donate_argnums=1)

    def replace(self, params: Any) -> None:
        """Takes other parameters of the same model; what slots have read is worthless then."""
        self._params = self._for_loop(params)

    @property
    def compilations(self) -> int:
        """The number of compiled programs: at most four, however the sampler is used."""
        return count_programs(self._read, self._score, self._copy, self._advance)

    @property
    def active(self) -> np.ndarray:
        """Bool `[P]`, the slots that `advance` extends."""
        return self._rows.active

    def warm_up(self) -> None:
        """Compiles all programs, so that no request waits for a compiler."""
        tokens = np.zeros(self.chunk, np.int32)
        self.read(0, tokens, 0)
        self.score(0, tokens, 0, tokens)
        self.copy(0, 0)
        self.start(0, token=0, position=0, limit=1, sampling=SamplingParams(), seed=0)
        self.advance(1)

    def read(self, slot: int, tokens: Sequence[int] | np.ndarray, start: int) -> None:
        """Reads at most C tokens of a prompt into a slot, from position `start` on."""
        self._cache = self._read(
            self._params, self._cache, self._padded(tokens), np.int32(start), np.int32(slot)
        )

    def score(
        self,
        slot: int,
        tokens: Sequence[int] | np.ndarray,
        start: int,
        following: Sequence[int] | np.ndarray,
    ) -> Scored:
        """Reads as `read` does, and returns the log-probs of the tokens that follow.

        Args:
          following: the token after each of `tokens`.
        """
        out, self._cache = self._score(
            self._params, self._cache, self._padded(tokens), np.int32(start), np.int32(slot),
            self._padded(following),
        )  # fmt: skip
        logprobs, alternatives, values = jax.device_get(out)
        count = len(tokens)
        return Scored(logprobs[:count], Alternatives(alternatives[:count], values[:count]))

    def copy(self, source: int, target: int) -> None:
        """Copies what a slot has read to another slot."""
        self._cache = self._copy(self._cache, np.int32(source), np.int32(target))

    def start(
        self,
        slot: int,
        *,
        token: int,
        position: int,
        limit: int,
        sampling: SamplingParams,
        seed: int,
        least: int = 0,
        ends: bool = True,
        alternatives: bool = False,
    ) -> None:
        """Starts sampling in a slot that has read its prompt but for the last token.

        Args:
          token: the last token of the prompt.
          position: its position.
          limit: the most tokens to draw.
          sampling: how they are drawn.
          seed: a number below 2**32. The n-th draw depends on it and on n.
          least: how many tokens at the start must be visible and not end the sample.
          ends: whether a stop id ends the sample.
          alternatives: whether the likeliest tokens are wanted.

        Raises:
          ValueError: prompt and limit exceed the columns of a slot.
        """
        if not 0 <= position < position + limit <= self.columns:
            raise ValueError(
                f"a prompt of {position + 1} tokens and a limit of {limit} do not fit into"
                f" {self.columns} columns; shorten one of them"
            )
        for name, value in (
            ("token", token), ("position", position), ("count", 0), ("limit", limit),
            ("least", least), ("ends", ends), ("active", True), ("seed", seed),
            ("temperature", sampling.temperature), ("top_k", sampling.top_k),
            ("top_p", sampling.top_p), ("min_p", sampling.min_p), ("alternatives", alternatives),
        ):  # fmt: skip
            getattr(self._rows, name)[slot] = value

    def stop(self, slot: int) -> None:
        """Ends the sample in a slot; what it has read stays there until it is overwritten."""
        self._rows.active[slot] = False

    def advance(self, steps: int) -> Burst:
        """Extends every active slot by up to `steps` tokens.

        Args:
          steps: at least 1, at most `most_steps`.
        """
        before, rows = self._rows.active.copy(), self._rows
        out, self._cache = self._advance(self._params, self._cache, rows, np.int32(steps))
        out = jax.device_get(out)
        for name in ("token", "position", "count", "active"):
            getattr(rows, name)[:] = out[name]
        finish = np.where(before, out["finish"], FREE)
        return Burst(
            out["tokens"], out["logprobs"], Alternatives(out["top_tokens"], out["top_logprobs"]),
            np.where(before, out["drawn"], 0), finish,
        )  # fmt: skip

    def _padded(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        padded = np.zeros(self.chunk, np.int32)
        padded[: len(tokens)] = tokens
        return padded

    def _read_program(self, params, cache, tokens, start, slot):
        return read_chunk(self.model, params, cache, tokens, start, slot)[1]

    def _score_program(self, params, cache, tokens, start, slot, following):
        hidden, cache = read_chunk(self.model, params, cache, tokens, start, slot)
        logprobs = jax.nn.log_softmax(self.model.bind(params).logits(hidden), -1)
        given = jnp.take_along_axis(logprobs, following[:, None], -1)[:, 0]
        values, tokens = jax.lax.top_k(logprobs, min(ALTERNATIVES, logprobs.shape[-1]))
        return (given, tokens, values), cache

    def _advance_program(self, params, cache, rows, steps):
        slots, width = self.slots, min(ALTERNATIVES, self.model.config.vocab_size)
        out = {
            "tokens": jnp.zeros((slots, self.most_steps), jnp.int32),
            "logprobs": jnp.zeros((slots, self.most_steps), jnp.float32),
            "top_tokens": jnp.zeros((slots, self.most_steps, width), jnp.int32),
            "top_logprobs": jnp.zeros((slots, self.most_steps, width), jnp.float32),
            "drawn": jnp.zeros(slots, jnp.int32),
            "finish": jnp.full(slots, RUNNING, jnp.int32),
        }
        keys = jax.vmap(jax.random.key)(rows.seed)

        def step(i, carry):
            cache, rows, out = carry
            active = rows.active
            logits, cache = decode_slots(
                self.model, params, cache, rows.token, rows.position, active
            )
            hidden_start = (rows.count < rows.least)[:, None] & self._hidden_start
            logits = jnp.where(hidden_start, -jnp.inf, logits)
            uniform = jax.vmap(_uniform)(keys, rows.count)
            token, logprob = _draw(logits, uniform, rows)
            top_tokens, top_logprobs = _alternatives(logits, rows, width)
            count = rows.count + active
            finish = jnp.where(count >= rows.limit, LENGTH, RUNNING)
            finish = jnp.where(rows.ends & jnp.asarray(self._stops)[token], STOP, finish)

            def put(name, value):
                return jax.lax.dynamic_update_slice_in_dim(out[name], value[:, None], i, 1)

            out = {
                "tokens": put("tokens", token),
                "logprobs": put("logprobs", logprob),
                "top_tokens": put("top_tokens", top_tokens),
                "top_logprobs": put("top_logprobs", top_logprobs),
                "drawn": out["drawn"] + active,
                "finish": jnp.where(active, finish, out["finish"]),
            }
            rows = dataclasses.replace(
                rows,
                token=jnp.where(active, token, rows.token),
                position=rows.position + active,
                count=count,
                active=active & (finish == RUNNING),
            )
            return cache, rows, out

        def more(carry):
            i, (_, rows, _) = carry
            return (i < steps) & rows.active.any()

        _, (cache, rows, out) = jax.lax.while_loop(
            more, lambda carry: (carry[0] + 1, step(*carry)), (jnp.int32(0), (cache, rows, out))
        )
        changed = ("token", "position", "count", "active")
        return out | {name: getattr(rows, name) for name in changed}, cache


def _uniform(key, count):
    return jax.random.uniform(jax.random.fold_in(key, count))


def _draw(logits, uniform, rows):
    """Returns a token and its log-prob for each slot, with the filters where a slot has any.

    A slot without filters is always drawn without them, whatever the other slots want: rounding
    could make the two programs differ.
    """

    def of(filtered):
        def one(logits, uniform, temperature, top_k, top_p, min_p):
            knobs = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
            token, logprob = draw(logits[None], uniform[None], knobs, filtered)
            return token[0], logprob[0]

        return jax.vmap(one)(logits, uniform, rows.temperature, rows.top_k, rows.top_p, rows.min_p)

    plain = of(filtered=False)
    wanted = (rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)

    def choose():
        return jax.tree.map(lambda a, b: jnp.where(wanted, a, b), of(filtered=True), plain)

    return jax.lax.cond((wanted & rows.active).any(), choose, lambda: plain)


def _alternatives(logits, rows, width):
    """Returns the likeliest tokens and their log-probs at temperature 1, if a slot wants them."""

    def find():
        values, tokens = jax.lax.top_k(jax.nn.log_softmax(logits, -1), width)
        return tokens.astype(jnp.int32), values

    shape = (logits.shape[0], width)
    nothing = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    return jax.lax.cond((rows.alternatives & rows.active).any(), find, lambda: nothing)
