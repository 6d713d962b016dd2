"""Continues texts (`/v1/completions`), whole or as a stream, and scores prompts (`echo`)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from reasoning.serving import bodies
from reasoning.serving.batch.response import Plan, Writing, begin, merged
from reasoning.serving.requests import CompletionRequest
from reasoning.serving.routes import Models

DEFAULT_LIMIT, MOST_PROMPTS = 16, 64


class Completion:
    """One request to continue texts; `start` submits it.

    Attributes:
      writings: the responses, once it was started.
    """

    def __init__(self, models: Models, request: CompletionRequest, most_tokens: int):
        """Reads the prompts: this takes time, in whatever thread.

        Raises:
          KeyError: the model is unknown.
          ValueError: a prompt does not fit, or cannot be read.
        """
        checkpoint = self._checkpoint = models.checkpoint(request.model)
        self._request, self._vocabulary = request, checkpoint.vocabulary
        prompts = request.prompts
        if not 1 <= len(prompts) <= MOST_PROMPTS:
            raise ValueError(f"give 1 to {MOST_PROMPTS} prompts, not {len(prompts)}")
        self._prompts: list[list[int]] = []
        for prompt in prompts:
            if isinstance(prompt, str):
                ids = checkpoint.tokenizer.encode_prompts([prompt])[0]
            else:
                ids = list(prompt)
            checkpoint.vocabulary.check(ids)
            self._prompts.append(ids)
        wanted = DEFAULT_LIMIT if request.max_tokens is None else request.max_tokens
        limit = min(wanted, most_tokens)
        if not limit and not request.echo:
            raise ValueError("max_tokens=0 needs echo=true: nothing would be returned")
        if request.echo and request.stream:
            raise ValueError("echo and stream cannot be combined")
        self._plan = Plan(
            limit, 0, request.sampling, request.seed, request.stops, bool(request.logprobs),
            chat=False, ends=not request.ignore_eos,
            score=bool(request.echo and request.logprobs is not None),
        )  # fmt: skip
        self._count = request.n or 1
        self.writings: list[Writing] = []
        self._head = bodies.head("text_completion", request.model)

    def start(self) -> None:
        """Submits the samples; their parts come to the event loop that runs.

        Raises:
          QueueFull: too many requests wait.
          ValueError: a prompt does not fit.
        """
        engine = self._checkpoint.engine
        self.writings = [
            Writing(engine, self._vocabulary, ids, "", self._plan, sample)
            for ids in self._prompts
            for sample in range(self._count)
        ]
        begin(engine, self.writings)

    def cancel(self) -> None:
        """Frees all slots."""
        for writing in self.writings:
            writing.cancel()

    @property
    def usage(self) -> dict[str, Any]:
        """The tokens used so far."""
        return bodies.usage(sum(map(len, self._prompts)), self.writings)

    async def whole(self) -> dict[str, Any]:
        """Returns the whole answer."""
        try:
            tokens = await asyncio.gather(*map(_tokens, self.writings))
        finally:
            self.cancel()
        choices = []
        for index, (writing, drawn) in enumerate(zip(self.writings, tokens)):
            prompt, text = self._prompts[index // self._count], writing.answer
            if self._request.echo:
                given = self._request.prompts[index // self._count]
                if not isinstance(given, str):
                    given = b"".join(self._vocabulary.raw[i] for i in prompt).decode(
                        "utf-8", "replace"
                    )
                text = given + text
                drawn = bodies.scored_tokens(prompt, writing.scored) + drawn
            choices.append(
                {
                    "index": index,
                    "text": text,
                    "finish_reason": writing.finish,
                    "logprobs": self._logprobs(drawn, 0),
                }
            )
        return self._head | {"choices": choices, "usage": self.usage}

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Yields the parts of the answer."""
        offsets = [0] * len(self.writings)
        async for index, part in merged(self.writings):
            finish = self.writings[index].finish if part is None else None
            text, tokens = (part.answer, part.tokens) if part else ("", [])
            choice = {
                "index": index,
                "text": text,
                "finish_reason": finish,
                "logprobs": self._logprobs(tokens, offsets[index]),
            }
            offsets[index] += len(text)
            yield self._head | {"choices": [choice]}
        if self._request.wants_usage:
            yield self._head | {"choices": [], "usage": self.usage}

    def _logprobs(self, tokens: list[Any], offset: int) -> dict[str, Any] | None:
        if self._request.logprobs is None:
            return None
        return bodies.text_logprobs(self._vocabulary, tokens, self._request.logprobs, offset)


async def _tokens(writing: Writing) -> list[Any]:
    return [token async for part in writing.parts() for token in part.tokens]
