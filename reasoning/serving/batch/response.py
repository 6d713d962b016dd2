"""Writes one response as it is sampled: chain and answer apart, within the limits of both.

The chain is closed when its budget is used up, so that the answer always has room. A response that
would end without a visible answer is continued by at least one visible token.
"""

import asyncio
import collections
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import fold_seed
from reasoning.hidden_reasoning import ANSWERING, TAG, THINKING, Segment, ThinkingSplitter
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE
from reasoning.serving.batch.engine import Drawn, Engine, Job, Ticket
from reasoning.serving.batch.text import Decoder, StopStrings, Vocabulary


class EngineStopped(Exception):
    """The engine stopped before the response was complete."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a response is written.

    Attributes:
      limit: the most tokens.
      chain: the most tokens before an answer must begin; ignored unless `chat`.
      sampling: how tokens are drawn.
      seed: seed of the draws; None for a random one.
      stop: strings that end the answer; they are not part of it.
      alternatives: whether the likeliest tokens are wanted.
      chat: whether to separate chain and answer; if not, the whole text is the answer.
      ends: whether the end-of-sequence token ends the response.
      closing: the text that closes a chain and begins the answer.
      score: whether the log-probs of the prompt are wanted.
    """

    limit: int
    chain: int = 0
    sampling: SamplingParams = SamplingParams()
    seed: int | None = None
    stop: Sequence[str] = ()
    alternatives: bool = False
    chat: bool = True
    ends: bool = True
    closing: str = f"\n{THINK_CLOSE}\n"
    score: bool = False


@dataclasses.dataclass(frozen=True)
class Token:
    """A sampled token of the answer, its log-prob and the likeliest tokens in its place."""

    token: int
    logprob: float
    alternatives: list[tuple[int, float]]


@dataclasses.dataclass(frozen=True)
class Part:
    """What a step adds to a response: text of the chain, of the answer, and the answer's tokens."""

    chain: str
    answer: str
    tokens: list[Token]


class Writing:
    """One response while it is written; iterate over `parts`.

    Attributes:
      tokens: tokens that were sampled so far.
      reasoning_tokens: those that begin within the chain, its tags included.
      logprob: the sum of the log-probs of all tokens.
      finish: "stop" or "length"; "" while it goes on.
      scored: the log-probs of the prompt, if they were wanted.
      chain, answer: the texts so far.
    """

    def __init__(
        self, engine: Engine, vocabulary: Vocabulary, prompt: Sequence[int], opening: str,
        plan: Plan, index: int = 0,
    ):  # fmt: skip
        self._engine, self._vocabulary, self._plan = engine, vocabulary, plan
        self._prompt = list(prompt)
        seed = secrets.randbits(31) if plan.seed is None else plan.seed
        self._seed, self._round = fold_seed(seed, "response", index), 0
        self._splitter = ThinkingSplitter(opening)
        self._decoder, self._stops = Decoder(vocabulary), StopStrings(plan.stop)
        self._pending: collections.deque[tuple[int, Token]] = collections.deque()
        self._read, self._space, self._begun = 0, "", False
        self._queue: asyncio.Queue[Drawn] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._ticket: Ticket | None = None
        self._least = 0
        self.tokens = self.reasoning_tokens = 0
        self.logprob, self.finish = 0.0, ""
        self.scored: list = []
        self.chain = self.answer = ""
        if plan.chat and self._must_answer():
            self._turn_to_answer()

    def job(self) -> Job:
        """Returns the next job for the engine."""
        plan = self._plan
        self._round += 1
        return Job(
            tuple(self._prompt), plan.limit - self.tokens, plan.sampling,
            fold_seed(self._seed, self._round), self._least, plan.ends, plan.alternatives,
            plan.score and self._round == 1,
        )  # fmt: skip

    def sink(self) -> Callable[[Drawn], None]:
        """Returns what takes the tokens of the current job, in the engine's thread."""
        queue = self._queue

        def take(drawn: Drawn) -> None:
            self._loop.call_soon_threadsafe(queue.put_nowait, drawn)

        return take

    def runs(self, ticket: Ticket) -> None:
        """Tells which ticket the engine gave for `job`."""
        self._ticket = ticket

    def cancel(self) -> None:
        """Frees the slot."""
        if self._ticket is not None:
            self._ticket.cancel()

    async def parts(self) -> AsyncIterator[Part]:
        """Yields the response as it comes.

        Raises:
          EngineStopped: the engine stopped before the end.
          QueueFull: the response had to be continued, and too many others wait.
        """
        try:
            while not self.finish:
                drawn = await self._queue.get()
                if drawn.finish in ("cancelled", "error"):
                    raise EngineStopped(drawn.finish)
                if part := self._take(drawn):
                    yield part
        finally:
            self.cancel()

    async def whole(self) -> "Writing":
        """Waits for the end of the response."""
        async for _ in self.parts():
            pass
        return self

    def _take(self, drawn: Drawn) -> Part | None:
        self.scored += drawn.scored or []
        chain, answer, tokens = "", "", []

        def add(segments: list[Segment]) -> None:
            nonlocal chain, answer
            for segment in segments:
                tokens.extend(self._owned(segment))
                if segment.kind == THINKING:
                    chain += segment.text
                elif segment.kind == ANSWERING:
                    answer += self._shown(segment.text)

        again = False
        for i, token in enumerate(drawn.tokens):
            last = drawn.finish if i == len(drawn.tokens) - 1 else ""
            alternatives = drawn.alternatives[i] if drawn.alternatives else []
            self._pending.append((self._read, Token(token, drawn.logprobs[i], alternatives)))
            self.tokens += 1
            self.logprob += drawn.logprobs[i]
            ended = last == "stop"
            if not ended:
                self._prompt.append(token)
                add(self._split(self._decoder.feed(token)))
            if self._stops.found:
                self.finish = "stop"
                break
            if self._plan.chat and self._must_answer(ended):
                add(self._turn_to_answer())
                again = True
                break
            if last:
                add(self._end())
                add(self._rest())
                self.finish = last
        if not drawn.tokens and drawn.finish:
            self.finish = drawn.finish
        if again:
            self.cancel()
            self._queue = asyncio.Queue()  # What the old job still sends is not wanted.
            (ticket,) = self._engine.submit([self.job()], [self.sink()])
            self.runs(ticket)
        self.chain += chain
        self.answer += answer
        if self.finish:
            self._count_rest(tokens)
        return Part(chain, answer, tokens) if chain or answer or tokens else None

    def _split(self, text: str) -> list[Segment]:
        start, self._read = self._read, self._read + len(text)
        if self._plan.chat:
            return self._splitter.feed(text)
        return [Segment(ANSWERING, text, start)] if text else []

    def _end(self) -> list[Segment]:
        found = self._split(self._decoder.finish())
        if self._plan.chat:
            found += self._splitter.finish()
        return found

    def _rest(self) -> list[Segment]:
        """Returns text that was held back, since it could have begun a stop string."""
        rest = self._stops.finish()
        if self._stops.found or not rest:
            return []
        self._stops = StopStrings(())
        return [Segment(ANSWERING, rest, self._read)]

    def _must_answer(self, ended: bool = False) -> bool:
        """Returns whether the answer must begin now to have room at all."""
        if self._begun or self._stops.found or self.tokens >= self._plan.limit:
            return False
        if self._least:  # The next token is a visible one already.
            return False
        if ended or self.tokens >= self._plan.limit - 1:
            return True
        return self._splitter.thinking and self.tokens >= self._plan.chain

    def _turn_to_answer(self) -> list[Segment]:
        """Closes the chain if it is open, and asks for a visible token."""
        found: list[Segment] = []
        if self._splitter.thinking:
            found = self._split(self._decoder.finish())
            found += self._splitter.close()
            self._prompt += self._vocabulary.tokenizer.encode(self._plan.closing)
        self._decoder = Decoder(self._vocabulary)
        self._least = 1
        return found

    def _shown(self, text: str) -> str:
        """Returns the part of the answer's text that may go out now."""
        if not self._plan.chat:
            return self._stops.feed(text)
        if not self._begun:
            text = text.lstrip()
        text = self._stops.feed(text) if text else ""
        text, self._space = self._space + text, ""
        kept = text.rstrip()
        if kept:
            self._begun, self._space = True, text[len(kept) :]
        else:
            self._space = text
        return kept

    def _owned(self, segment: Segment) -> list[Token]:
        """Counts the tokens that begin within a segment; returns those of the answer."""
        end, found = segment.start + len(segment.text), []
        while self._pending and self._pending[0][0] < end:
            _, token = self._pending.popleft()
            answers = segment.text in (ANSWER_OPEN, ANSWER_CLOSE)
            if segment.kind == THINKING or (segment.kind == TAG and not answers):
                self.reasoning_tokens += 1
            elif segment.kind == ANSWERING:
                found.append(token)
        return found

    def _count_rest(self, tokens: list[Token]) -> None:
        """Counts the tokens without text at the end, such as the end of the sequence."""
        if not self._plan.chat:  # Clients that score texts count all tokens from the end.
            tokens += [token for _, token in self._pending]
        elif self._splitter.thinking:
            self.reasoning_tokens += len(self._pending)
        self._pending.clear()


def begin(engine: Engine, writings: Sequence[Writing]) -> None:
    """Submits the first jobs of several responses, all or none of them.

    Raises:
      QueueFull, ValueError: see `Engine.submit`.
    """
    jobs = [writing.job() for writing in writings]
    tickets = engine.submit(jobs, [writing.sink() for writing in writings])
    for writing, ticket in zip(writings, tickets, strict=True):
        writing.runs(ticket)


async def merged(writings: Sequence[Writing]) -> AsyncIterator[tuple[int, Part | None]]:
    """Yields (index, part) of several responses as they come, and (index, None) at each one's end.

    When the caller stops early, the responses are cancelled.

    Raises:
      EngineStopped, QueueFull: see `Writing.parts`.
    """
    queue: asyncio.Queue[tuple[int, Part | Exception | None]] = asyncio.Queue()

    async def pump(index: int, writing: Writing) -> None:
        try:
            async for part in writing.parts():
                queue.put_nowait((index, part))
            queue.put_nowait((index, None))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(i, writing)) for i, writing in enumerate(writings)]
    try:
        left = len(tasks)
        while left:
            index, part = await queue.get()
            if isinstance(part, Exception):
                raise part
            left -= part is None
            yield index, part
    finally:
        for writing in writings:
            writing.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
