"""The schedule of a served model: requests wait, get a slot, are read and sampled, and leave.

One thread owns the compiled sampler. Requests come from any thread and get their tokens through a
callback. A prompt, or the start of one, that some slot has read before is copied, not read again.
"""

import collections
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.decoding.sampling import SamplingParams
from models.decoding.slot_sampler import FREE, RUNNING, STOP, Scored, SlotSampler

# How long one call of the sampler should take: short enough for text to flow, and long enough for
# the cost of a call not to count.
BURST_SECONDS = 0.03
# How long prompts may be read while other requests wait for their next token.
READ_SECONDS = 0.1


class QueueFull(Exception):
    """So many requests wait that no more are taken.

    Attributes:
      seconds: about how long a client should wait before it tries again.
    """

    def __init__(self, seconds: float):
        super().__init__("too many requests are waiting")
        self.seconds = seconds


@dataclasses.dataclass(frozen=True)
class Job:
    """One sample to draw.

    Attributes:
      prompt: token ids, at least one.
      limit: the most tokens to draw; 0 only scores the prompt.
      sampling: how they are drawn.
      seed: below 2**32; the sample depends on it, the prompt and the settings alone.
      least: how many tokens at the start must be visible.
      ends: whether a stop id ends the sample.
      alternatives: whether the likeliest tokens are wanted.
      score: whether the log-probs of the prompt are wanted.
    """

    prompt: Sequence[int]
    limit: int
    sampling: SamplingParams = SamplingParams()
    seed: int = 0
    least: int = 0
    ends: bool = True
    alternatives: bool = False
    score: bool = False


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Tokens of a job as they come.

    Attributes:
      tokens: token ids.
      logprobs: their log-probs.
      alternatives: for each token, the likeliest ones as (id, log-prob); empty unless wanted.
      finish: "" while more tokens come; then "stop", "length", "cancelled" or "error".
      scored: the log-probs of the prompt; only with the first part, if they were wanted.
    """

    tokens: list[int]
    logprobs: list[float]
    alternatives: list[list[tuple[int, float]]]
    finish: str
    scored: list[Scored] | None = None


class Ticket:
    """A job in the engine; `cancel` frees its slot."""

    def __init__(self, job: Job, sink: Callable[[Drawn], None]):
        self.job, self.sink = job, sink
        self.cancelled = False
        self.slot: int | None = None
        self.read = self.reused = 0
        self.scored: list[Scored] = []

    def cancel(self) -> None:
        """Ends the job at the next step; no more tokens come."""
        self.cancelled = True


class Engine:
    """Runs the jobs of one model in a thread of its own.

    Attributes:
      columns: the most tokens of prompt and sample together.
    """

    def __init__(self, sampler: SlotSampler, *, queue: int = 128, lock: Any = None):
        """Makes an engine; `start` starts its thread.

        Args:
          sampler: the compiled sampler; the engine is its only user.
          queue: how many jobs may wait for a slot.
          lock: held while a program runs on the device, so that several engines take turns.
        """
        self.columns = sampler.columns
        self._sampler, self._most_waiting = sampler, queue
        self._device = lock or threading.Lock()
        self._changed = threading.Condition()
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._running: dict[int, Ticket] = {}
        # The tokens that each slot has read by whole chunks, for others to copy.
        self._known: list[tuple[int, ...]] = [()] * sampler.slots
        self._used = [0] * sampler.slots
        self._clock = itertools.count(1)
        self._closed = False
        self._replacement: Any = None
        self._refused: Exception | None = None
        self._step_seconds = 0.01
        self.counts: collections.Counter[str] = collections.Counter()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Compiles the programs and starts the thread."""
        self._sampler.warm_up()
        self._thread.start()

    def close(self) -> None:
        """Cancels all jobs and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=60)

    @property
    def healthy(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._closed

    @property
    def load(self) -> tuple[int, int]:
        """Jobs that wait, and jobs that have a slot."""
        return len(self._waiting), len(self._running)

    def submit(self, jobs: Sequence[Job], sinks: Sequence[Callable[[Drawn], None]]) -> list[Ticket]:
        """Takes jobs, all or none of them.

        Args:
          sinks: for each job, what takes its tokens. It is called in the engine's thread, and
            must return at once.

        Raises:
          QueueFull: too many jobs wait already.
          ValueError: a job does not fit into a slot, or the engine has been closed.
        """
        for job in jobs:
            if not job.prompt or len(job.prompt) + job.limit > self.columns:
                raise ValueError(
                    f"a prompt of {len(job.prompt)} tokens and {job.limit} new ones exceed the"
                    f" server's limit of {self.columns} tokens; shorten one of them"
                )
        tickets = [Ticket(job, sink) for job, sink in zip(jobs, sinks, strict=True)]
        with self._changed:
            if self._closed:
                raise ValueError("the server is shutting down")
            free = self._sampler.slots - len(self._running)
            if len(self._waiting) + len(jobs) > self._most_waiting + free:
                raise QueueFull(self._wait_seconds())
            self._waiting.extend(tickets)
            self._changed.notify_all()
        return tickets

    def replace(self, params: Any) -> None:
        """Gives the sampler other parameters once no job runs; jobs that wait go on waiting.

        Raises:
          ValueError: the engine has been closed, or the sampler cannot take the parameters, such as
            for lack of memory; it then keeps those that it has.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._replacement is None or self._closed)
            if not self._closed:
                self._replacement, self._refused = params, None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._replacement is None or self._closed)
            if self._closed:
                raise ValueError("the server is shutting down")
            if self._refused is not None:
                fault = " ".join(str(self._refused).split())[:300]
                raise ValueError(f"the new weights could not be taken: {fault}") from None

    def _take_replacement(self) -> None:
        try:
            with self._device:
                self._sampler.replace(self._replacement)
            self._known = [()] * self._sampler.slots
        except Exception as error:
            self._refused = error
        self._replacement = None
        self._changed.notify_all()

    def _wait_seconds(self) -> float:
        """Returns about how long the jobs with a slot still take."""
        left = [ticket.job.limit for ticket in self._running.values()]
        return max(1.0, self._step_seconds * sum(left) / max(1, len(left)) / 2)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (
                    self._waiting or self._running or self._closed or self._replacement is not None
                ):
                    self._changed.wait()
                if self._closed:
                    left = [*self._waiting, *self._running.values()]
                    self._waiting.clear()
                    self._running.clear()
                    for ticket in left:
                        self._give(ticket, Drawn([], [], [], "cancelled"))
                    return
                self._drop_cancelled()
                if self._replacement is None:
                    self._admit()
                elif not self._running:
                    self._take_replacement()
                    continue
            try:
                self._read_prompts()
                if self._sampler.active.any():
                    self._advance()
            except Exception as error:  # The device failed: no job may hang because of that.
                self.counts["errors"] += 1
                with self._changed:
                    self._closed = True
                    self._changed.notify_all()
                    left = [*self._waiting, *self._running.values()]
                for ticket in left:
                    self._give(ticket, Drawn([], [], [], "error"))
                raise RuntimeError("the engine has failed") from error

    def _drop_cancelled(self) -> None:
        for ticket in [t for t in self._waiting if t.cancelled]:
            self._waiting.remove(ticket)
            self.counts["cancelled"] += 1
        for slot, ticket in list(self._running.items()):
            if ticket.cancelled:
                self.counts["cancelled"] += 1
                self._leave(slot)

    def _leave(self, slot: int) -> None:
        self._sampler.stop(slot)
        self._running.pop(slot, None)

    def _admit(self) -> None:
        """Gives free slots to jobs that wait, in order."""
        while self._waiting and len(self._running) < self._sampler.slots:
            ticket = self._waiting.popleft()
            # The last token of a prompt is the first input of the sample.
            body = tuple(ticket.job.prompt[:-1])
            known = [0 if ticket.job.score else self._shared(body, each) for each in self._known]
            free = [slot for slot in range(self._sampler.slots) if slot not in self._running]
            best = max(range(len(known)), key=known.__getitem__)
            slot = max(free, key=lambda each: (known[each], -self._used[each]))
            if known[slot] < known[best]:
                # Rather forget what was not used for long than what others may copy yet.
                slot = min(free, key=self._used.__getitem__)
                with self._device:
                    self._sampler.copy(best, slot)
            ticket.slot, ticket.read, ticket.reused = slot, known[best], known[best]
            self._known[slot] = body[: known[best]]
            self._used[slot] = self._used[best] = next(self._clock)
            self._running[slot] = ticket
            self.counts["prompt_tokens"] += len(ticket.job.prompt)
            self.counts["reused_tokens"] += known[best]

    def _shared(self, body: tuple[int, ...], known: tuple[int, ...]) -> int:
        """Returns how many tokens of `body` a slot knows, in whole chunks."""
        size, shared = self._sampler.chunk, 0
        while shared + size <= min(len(body), len(known)):
            if body[shared : shared + size] != known[shared : shared + size]:
                break
            shared += size
        return shared

    def _read_prompts(self) -> None:
        """Reads prompts chunk by chunk; stops early if other jobs wait for their next token."""
        began = time.monotonic()
        for slot, ticket in list(self._running.items()):
            job, body = ticket.job, ticket.job.prompt[:-1]
            if self._sampler.active[slot]:
                continue
            while ticket.read < len(body):
                if self._sampler.active.any() and time.monotonic() - began > READ_SECONDS:
                    return
                end = min(ticket.read + self._sampler.chunk, len(body))
                tokens = body[ticket.read : end]
                with self._device:
                    if job.score:
                        ticket.scored.append(
                            self._sampler.score(
                                slot, tokens, ticket.read, job.prompt[ticket.read + 1 : end + 1]
                            )
                        )
                    else:
                        self._sampler.read(slot, tokens, ticket.read)
                ticket.read = end
                if len(tokens) == self._sampler.chunk and not job.score:
                    self._known[slot] = tuple(body[:end])
                if ticket.cancelled:
                    break
            if ticket.cancelled:
                continue
            if not job.limit:
                with self._changed:
                    self._leave(slot)
                self._give(ticket, Drawn([], [], [], "length", ticket.scored))
                continue
            self._sampler.start(
                slot, token=job.prompt[-1], position=len(body), limit=job.limit,
                sampling=job.sampling, seed=job.seed, least=job.least, ends=job.ends,
                alternatives=job.alternatives,
            )  # fmt: skip

    def _advance(self) -> None:
        steps = int(np.clip(BURST_SECONDS / self._step_seconds, 1, self._sampler.most_steps))
        began = time.monotonic()
        with self._device:
            burst = self._sampler.advance(steps)
        took = (time.monotonic() - began) / max(1, int(burst.lengths.max()))
        self._step_seconds += 0.2 * (took - self._step_seconds)
        self.counts["steps"] += int(burst.lengths.max())
        self.counts["generated_tokens"] += int(burst.lengths.sum())
        for slot, ticket in list(self._running.items()):
            if (why := burst.finish[slot]) == FREE or ticket.cancelled:
                continue
            count = burst.lengths[slot]
            alternatives = []
            if ticket.job.alternatives:
                alternatives = [
                    list(zip(ids.tolist(), values.tolist()))
                    for ids, values in zip(
                        burst.alternatives.tokens[slot, :count],
                        burst.alternatives.logprobs[slot, :count],
                    )
                ]
            finish = "" if why == RUNNING else "stop" if why == STOP else "length"
            if finish:
                with self._changed:
                    self._leave(slot)
            scored, ticket.scored = ticket.scored or None, []
            self._give(
                ticket,
                Drawn(
                    burst.tokens[slot, :count].tolist(),
                    burst.logprobs[slot, :count].tolist(),
                    alternatives,
                    finish,
                    scored,
                ),  # fmt: skip
            )

    def _give(self, ticket: Ticket, drawn: Drawn) -> None:
        try:
            ticket.sink(drawn)
        except Exception:  # The client's event loop has gone.
            ticket.cancelled = True
