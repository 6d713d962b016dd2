"""The compiled sampler: draws G samples of each prompt of a queue in one XLA program.

Prompts wait in a queue on the device. P of them hold a slot at a time. The sampler prefills each
prompt once, and all its G samples share its keys and values. Every decode step advances all samples
of all slots by one token. When enough slots have finished, the sampler prefills the next prompts
into them, so that short samples do not wait for long ones (continuous batching as in Orca, OSDI
2022, but by whole groups of samples).

All samples write their keys and values to the same cache column, a counter modulo W. So a write is
one slice update instead of a scatter; a mask says which columns belong to which sample.

Input and output share columns: the column that stores the key of an input token also stores the
token that was sampled after it. The last prompt token is the first input, so the first sampled
token needs no special case.

The program can end after a number of decode steps and go on from where it was, so that a job can
stop in the middle of long samples. What it draws does not depend on that, but for rounding.

`models.paths.path_sampler` is the sampler for searches, which extend samples step by step.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from models.decoder import LanguageModel
from models.decoding.cached import decode, prefill
from models.decoding.compilations import count_programs
from models.decoding.requests import bucket, check_prompts
from models.decoding.samples import (
    LENGTH,
    RUNNING,
    STOP_STRING,
    STOP_TOKEN,
    Samples,
    SamplingStopped,
)
from models.decoding.sampling import SamplingParams, draw
from models.decoding.slots import Slots
from models.layers.kv_cache import live_blocks
from models.sharding import batch_shards, constrain, for_decoding
from models.tokens.stopping import TokenAutomaton

# Decode steps between two looks at whether to stop: some seconds with a large model.
STRETCH = 256
_NO_END = np.iinfo(np.int32).max


class Sampler:
    """Draws samples from one model, compiled for one number of slots, samples and columns.

    Attributes:
      model: the model that it samples from.
      slots: P, prompts in flight at a time.
      group: G, samples of each prompt.
      max_new_tokens: W, columns of the cache and so the most tokens of a sample.
      admit: A, how many slots must be free before the sampler prefills new prompts into them. The
        default is a quarter of the slots, so that prefills come in batches.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        slots: int,
        group: int,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        stop_strings: TokenAutomaton | None = None,
        admit: int | None = None,
    ):
        """Creates a sampler; compilation happens at the first call.

        Args:
          stop_ids: a sample ends after any of these tokens.
          stop_strings: a sample ends once its text contains one of this automaton's strings.

        Raises:
          ValueError: a size below one, or a stop id outside the vocabulary.
        """
        for name, value in (("slots", slots), ("group", group), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        vocab = model.config.vocab_size
        if bad := [i for i in stop_ids if not 0 <= i < vocab]:
            raise ValueError(
                f"stop id {bad[0]} is outside the model's vocabulary of {vocab} tokens; is it from"
                " another tokenizer?"
            )
        self.model, self.slots, self.group = model, slots, group
        self.max_new_tokens = max_new_tokens
        self.admit = min(slots, admit or max(1, slots // 4))
        self._stop_table = np.isin(np.arange(vocab), list(stop_ids))
        self._automaton = stop_strings
        self._begin = jax.jit(functools.partial(self._begun), static_argnums=(0, 1))
        self._programs: dict[Any, Any] = {}

    @property
    def compilations(self) -> int:
        """The number of programs compiled so far.

        There is one for each pair of buckets of queue length and prompt length.
        """
        return count_programs(*self._programs.values())

    def __call__(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        key: jax.Array,
        sampling: SamplingParams = SamplingParams(),
        limits: Sequence[int] | None = None,
        *,
        kept: Samples | None = None,
        stop: Callable[[], str | None] | None = None,
    ) -> Samples:
        """Draws G samples of every prompt.

        The random numbers of sample g of prompt i depend on `key`, i and g alone, not on the slots.

        Args:
          params: parameters of the model.
          prompts: token ids of B prompts, each of at least one token.
          key: random key.
          sampling: how tokens are drawn.
          limits: most new tokens of each prompt's samples; `max_new_tokens` by default.
          kept: what `SamplingStopped` brought when the same call was stopped; its finished samples
            are not drawn again.
          stop: asked every `STRETCH` decode steps; a reason to stop, or None. All processes of a
            job must get the same answer.

        Raises:
          SamplingStopped: `stop` has given a reason.
          ValueError: an empty prompt, a token outside the vocabulary, a limit above
            `max_new_tokens`, or a prompt that leaves no room in the model's context.
        """
        limits = [self.max_new_tokens] * len(prompts) if limits is None else list(limits)
        check_prompts(self.model.config, prompts, limits, self.max_new_tokens)
        queue = max(self.slots, bucket(len(prompts)))
        width = bucket(max(len(p) for p in prompts), least=16)
        tokens = np.zeros((queue, width), np.int32)
        lengths, row_limits = np.zeros((2, queue), np.int32)
        streams, skipped = np.zeros(queue, np.int32), np.zeros((queue, self.group), bool)
        done = np.zeros((len(prompts), self.group), bool) if kept is None else kept.finished
        waiting = np.flatnonzero(~done.all(-1))
        for row, i in enumerate(waiting.tolist()):
            tokens[row, : len(prompts[i])] = prompts[i]
            lengths[row], row_limits[row] = len(prompts[i]), limits[i]
            streams[row], skipped[row] = i, done[i]
        automaton = self._automaton.transitions if self._automaton else None

        with for_decoding():
            # A key belongs to the mesh that it was made under.
            key = jax.random.wrap_key_data(jax.device_get(jax.random.key_data(key)))
            carry, shardings = self._first(queue, width, params)
        run = self._program(queue, width, shardings)
        steps, unfinished = 0, len(waiting) > 0
        while unfinished:
            steps = _NO_END if stop is None else steps + STRETCH
            with for_decoding():
                carry, more = run(
                    params, tokens, lengths, row_limits, streams, skipped, np.int32(len(waiting)),
                    np.int32(steps), carry, sampling.knobs, self._stop_table, automaton, key,
                    filtered=sampling.filtered,
                )  # fmt: skip
            unfinished = bool(more)
            if unfinished and stop is not None and (reason := stop()) is not None:
                drawn = self._drawn(carry, waiting, len(prompts))
                raise SamplingStopped(reason, drawn.completed(kept))
        return self._drawn(carry, waiting, len(prompts)).completed(kept)

    def _first(self, queue: int, width: int, params: Any) -> tuple[Any, Any]:
        """Returns the state before the first step, and its layout; None leaves that to XLA."""
        carry, weights = self._begin(queue, width), jax.tree.leaves(params)[0]
        # Weights of NumPy are on no device yet.
        devices = weights.devices() if isinstance(weights, jax.Array) else {None}
        if len(devices) == 1:
            (device,) = devices
            if device is not None:
                carry = jax.device_put(carry, SingleDeviceSharding(device))
        elif jax.sharding.get_mesh().size < 2:  # Nobody has said how to use these devices.
            return carry, None
        return carry, jax.tree.map(lambda x: x.sharding, carry)

    def _program(self, queue: int, width: int, shardings: Any) -> Any:
        """Returns the compiled sampler, which gives its state back in the layout that it got.

        In another layout it would be compiled anew for the second stretch.
        """
        key = (queue, width, *jax.tree.leaves(shardings))
        if key not in self._programs:
            self._programs[key] = jax.jit(
                functools.partial(self._generate),
                static_argnames=("filtered",),
                donate_argnums=8,
                out_shardings=None if shardings is None else (shardings, None),
            )
        return self._programs[key]

    def _drawn(self, carry: Any, rows: np.ndarray, count: int) -> Samples:
        """Fetches the samples of the queue's rows, and puts them into the places of the prompts."""
        slots, _, out = carry
        out, steps = jax.device_get((out, slots.step))
        whole = {}
        for name, found in out.items():
            whole[name] = np.zeros((count, *found.shape[1:]), found.dtype)
            whole[name][rows] = found[: len(rows)]
        return Samples(**whole, steps=int(steps))

    def lower(self, params: Any, queue: int, width: int) -> Any:
        """Lowers the program for abstract parameters, to compile it without arrays.

        It begins with no samples and goes on to the end of all.

        Args:
          queue: prompts that wait, rounded up as `bucket` does; at least the slots.
          width: longest prompt in tokens, rounded up likewise.
        """
        tokens = jax.ShapeDtypeStruct((queue, width), jnp.int32)
        numbers = jax.ShapeDtypeStruct((queue,), jnp.int32)
        skipped = jax.ShapeDtypeStruct((queue, self.group), jnp.bool)

        def whole(params, tokens, numbers, skipped, knobs, stop_table, key):
            (slots, _, out), _ = self._generate(
                params, tokens, numbers, numbers, numbers, skipped, np.int32(queue), _NO_END,
                self._begun(queue, width), knobs, stop_table, None, key, filtered=False,
            )  # fmt: skip
            return out | {"steps": slots.step}

        with for_decoding():
            # Abstract, too: the devices of the mesh may not be there to make a key.
            key = jax.eval_shape(lambda: jax.random.key(0))
            knobs = SamplingParams().knobs
            arguments = (tokens, numbers, skipped, knobs, self._stop_table, key)
            return jax.jit(whole).lower(params, *arguments)

    def _begun(self, num_rows: int, width: int):
        """Returns the state before the first step: slots, next prompt, and the output."""
        shape = (num_rows, self.group)
        out = {
            "tokens": jnp.zeros((*shape, self.max_new_tokens), jnp.int32),
            "logprobs": jnp.zeros((*shape, self.max_new_tokens), jnp.float32),
            "lengths": jnp.zeros(shape, jnp.int32),
            "finish": jnp.zeros(shape, jnp.int32),
        }
        # Every process of a job reads the whole output.
        out = {name: constrain(x, *(None,) * x.ndim) for name, x in out.items()}
        return (
            Slots.empty(self.model.config, self.slots, self.group, width, self.max_new_tokens),
            jnp.int32(0),
            out,
        )

    def _generate(
        self, params, queue, lengths, limits, streams, skipped, num_prompts, until, carry, knobs,
        stop_table, automaton, key, *, filtered,
    ):  # fmt: skip
        """Goes on from `carry` up to decode step `until`, or to the end.

        Returns:
          The new state; and whether samples are unfinished.
        """
        P, G, W = self.slots, self.group, self.max_new_tokens
        # Prompts that are read at a time divide over the devices that share a batch; otherwise each
        # device would read all of them.
        shards = batch_shards(jax.sharding.get_abstract_mesh())
        A = min(P, -(-self.admit // shards) * shards)
        model, params = self.model, self.model.for_loop(params, queue.shape[1] + W)
        num_rows = queue.shape[0]

        def collect(slots: Slots, out, whole_prompts=True):
            """Copies finished samples to the output and unrolls their circular columns.

            Without `whole_prompts` those of all slots are copied, also unfinished ones.
            """
            order = (slots.start[:, None] + jnp.arange(W)) % W
            order = jnp.broadcast_to(order[:, None], (P, G, W))
            valid = jnp.arange(W) < slots.count[..., None]
            done = slots.prompt >= 0
            if whole_prompts:
                done &= ~slots.active.any(-1)
            row = jnp.where(done, slots.prompt, num_rows)

            def put(where, value):
                return where.at[row].set(value, mode="drop")

            tokens = jnp.take_along_axis(slots.columns_token, order, -1)
            logprobs = jnp.take_along_axis(slots.columns_logprob, order, -1)
            return {
                "tokens": put(out["tokens"], jnp.where(valid, tokens, 0)),
                "logprobs": put(out["logprobs"], jnp.where(valid, logprobs, 0.0)),
                "lengths": put(out["lengths"], slots.count),
                "finish": put(out["finish"], slots.finish),
            }

        def uniform(prompts, start):
            """Returns uniform numbers `[A, G, W]`; number n is in the column of step start + n."""
            stream = streams[prompts][:, None] * G + jnp.arange(G)
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(stream.ravel())
            draws = jax.vmap(lambda key: jax.random.uniform(key, (W,)))(keys)
            return jnp.roll(draws, start % W, -1).reshape(A, G, W)

        def enough_free(slots: Slots, next_prompt):
            free = (~slots.active.any(-1)).sum()
            waiting = jnp.minimum(num_prompts - next_prompt, A)
            return (waiting > 0) & (free >= waiting)

        def fill(slots: Slots, next_prompt):
            """Prefills up to A waiting prompts into free slots, if there are enough of these."""
            busy = slots.active.any(-1)
            candidates = jnp.argsort(busy, stable=True)[:A]
            index = next_prompt + jnp.arange(A)
            usable = ~busy[candidates] & (index < num_prompts) & enough_free(slots, next_prompt)
            into = jnp.where(usable, candidates, P)
            row = jnp.clip(index, 0, num_rows - 1)
            tokens, length = queue[row], lengths[row]
            last = jnp.take_along_axis(tokens, jnp.maximum(length - 1, 0)[:, None], -1)

            def put(where, value):
                value = jnp.broadcast_to(value, (A, *where.shape[1:])).astype(where.dtype)
                return where.at[into].set(value, mode="drop")

            slots = dataclasses.replace(
                slots,
                cache=prefill(model, params, slots.cache, tokens, length - 1, into),
                prompt=put(slots.prompt, index),
                start=put(slots.start, slots.step),
                limit=put(slots.limit, limits[row][:, None]),
                count=put(slots.count, 0),
                token=put(slots.token, last),
                position=put(slots.position, length[:, None] - 1),
                finish=put(slots.finish, jnp.where(skipped[row], LENGTH, RUNNING)),
                automaton=put(slots.automaton, 0),
                columns_uniform=put(slots.columns_uniform, uniform(row, slots.step)),
            )
            return slots, next_prompt + usable.sum()

        def step(slots: Slots) -> Slots:
            active, column = slots.active, slots.step % W
            # Active slots were filled at most W steps ago, so `oldest` is less than a turn behind.
            oldest = jnp.where(active.any(-1), slots.start, slots.step).min()
            logits, cache = decode(
                model, params, slots.cache, slots.token, slots.position, column, active,
                live=live_blocks(W, oldest, slots.step),
            )  # fmt: skip
            uniform = slots.columns_uniform[:, :, column].ravel()
            token, logprob = draw(logits, uniform, knobs, filtered)
            token, logprob = token.reshape(P, G), logprob.reshape(P, G)
            count = slots.count + active
            finish = jnp.where(count >= slots.limit, LENGTH, RUNNING)
            state = slots.automaton
            if automaton is not None:
                state = automaton[state, token].astype(jnp.int32)
                finish = jnp.where(state == automaton.shape[0] - 1, STOP_STRING, finish)
            finish = jnp.where(stop_table[token], STOP_TOKEN, finish)

            def write(columns, value):
                # Finished samples wait to be collected, and the counter may meanwhile come round to
                # their columns.
                value = jnp.where(active, value, columns[:, :, column])
                return jax.lax.dynamic_update_slice(columns, value[..., None], (0, 0, column))

            return dataclasses.replace(
                slots,
                cache=cache,
                step=slots.step + 1,
                count=count,
                token=jnp.where(active, token, slots.token),
                position=slots.position + active,
                finish=jnp.where(active, finish, slots.finish),
                automaton=jnp.where(active, state, slots.automaton),
                columns_token=write(slots.columns_token, token),
                columns_logprob=write(slots.columns_logprob, logprob),
            )

        def decode_until_slots_are_free(slots: Slots, next_prompt) -> Slots:
            def keep_going(slots):
                going = slots.active.any() & ~enough_free(slots, next_prompt)
                return going & (slots.step < until)

            return jax.lax.while_loop(keep_going, step, slots)

        def round_(carry):
            slots, next_prompt, out = carry
            slots, next_prompt = fill(slots, next_prompt)
            slots = decode_until_slots_are_free(slots, next_prompt)
            return slots, next_prompt, collect(slots, out)

        def unfinished(carry):
            slots, next_prompt, _ = carry
            return slots.active.any() | (next_prompt < num_prompts)

        def goes_on(carry):
            return unfinished(carry) & (carry[0].step < until)

        slots, next_prompt, out = jax.lax.while_loop(goes_on, round_, carry)
        carry = slots, next_prompt, collect(slots, out, whole_prompts=False)
        return carry, unfinished(carry)
