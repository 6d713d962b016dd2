"""Answers chat requests, whole or as a stream of parts."""

import time
from collections.abc import AsyncIterator
from typing import Any

from reasoning.effort import asked
from reasoning.hidden_reasoning import summarise
from reasoning.serving import bodies
from reasoning.serving.batch.response import Plan, Writing, begin, merged
from reasoning.serving.models import Prompt
from reasoning.serving.requests import EXPLICIT, HIDDEN, SUMMARY, ChatRequest
from reasoning.serving.routes import Choice, Models, elect

# From the least to the most that a reader sees of a chain.
_DISPLAYS = (HIDDEN, SUMMARY, EXPLICIT)
DEFAULT_LIMIT = 1024


class Chat:
    """One chat request; `start` submits it.

    Attributes:
      choice: the route.
      writings: the responses, once it was started.
    """

    def __init__(self, models: Models, request: ChatRequest, display: str, most_tokens: int):
        """Chooses the route and renders the prompt: this takes time, in whatever thread.

        Args:
          display: the most that may be shown of a chain.
          most_tokens: the most tokens of a response.

        Raises:
          KeyError: the model is unknown.
          ValueError: the prompt does not fit, or the template refuses it.
        """
        self._began, self._request = time.monotonic(), request
        checkpoint = models.checkpoint(request.model)
        wanted = request.limit or min(DEFAULT_LIMIT, most_tokens)
        self.choice: Choice = models.choose(request, min(wanted, most_tokens))
        checkpoint = self.choice.checkpoint
        self._checkpoint = checkpoint
        variables = dict(request.chat_template_kwargs or {})
        variables.pop("enable_thinking", None)
        reserved = {"messages", "add_generation_prompt", "tools", "documents", "name", "template"}
        if bad := reserved & variables.keys():
            raise ValueError(f"chat_template_kwargs may not set {min(bad)!r}")
        messages = [message.plain for message in request.messages]
        if checkpoint.named_budgets and self.choice.thinking is not None:
            turn = next((each for each in reversed(messages) if each["role"] == "user"), None)
            if turn is not None:
                turn["content"] = asked(turn["content"], self.choice.decision.route)
        self._prompt: Prompt = checkpoint.prompt(messages, self.choice.thinking, variables)
        room = checkpoint.engine.columns - len(self._prompt.ids)
        if room < 1 or (request.limit and room < min(request.limit, most_tokens)):
            raise ValueError(
                f"the prompt has {len(self._prompt.ids)} tokens; with max_completion_tokens="
                f"{request.limit or 1} it exceeds the context of {checkpoint.engine.columns}"
                " tokens: shorten one of them"
            )
        limit = min(wanted, most_tokens, room)
        shown = request.reasoning_display or EXPLICIT
        if request.include_reasoning is False:
            shown = HIDDEN
        self._display = min(shown, display, key=_DISPLAYS.index)
        self._plan = Plan(
            limit, min(self.choice.chain, limit), request.sampling, request.seed, request.stops,
            bool(request.logprobs and request.top_logprobs), ends=not request.ignore_eos,
            closing=checkpoint.closing,
        )  # fmt: skip
        self._vote = self.choice.samples > 1
        self.writings: list[Writing] = []
        self._head = bodies.head("chat.completion", request.model)

    def start(self) -> None:
        """Submits the samples; their parts come to the event loop that runs.

        Raises:
          QueueFull: too many requests wait.
        """
        checkpoint = self._checkpoint
        count = self.choice.samples if self._vote else self._request.n or 1
        self.writings = [
            Writing(
                checkpoint.engine, checkpoint.vocabulary, self._prompt.ids, self._prompt.opening,
                self._plan, index,
            )
            for index in range(count)
        ]  # fmt: skip
        begin(checkpoint.engine, self.writings)

    def cancel(self) -> None:
        """Frees all slots."""
        for writing in self.writings:
            writing.cancel()

    @property
    def usage(self) -> dict[str, Any]:
        """The tokens used so far."""
        return bodies.usage(len(self._prompt.ids), self.writings)

    async def whole(self) -> dict[str, Any]:
        """Returns the whole answer."""
        tokens: list[list[Any]] = [[] for _ in self.writings]
        async for index, part in merged(self.writings):
            tokens[index] += part.tokens if part else []
        chosen, candidates = list(range(len(self.writings))), []
        if self._vote:
            best, candidates = elect(self.writings, self.choice.decision.route.kind)
            chosen = [best]
        choices = []
        for place, index in enumerate(chosen):
            writing = self.writings[index]
            message: dict[str, Any] = {
                "role": "assistant", "content": writing.answer, "refusal": None,
            }  # fmt: skip
            message |= self._chain_fields(writing)
            choices.append(
                {
                    "index": place,
                    "message": message,
                    "finish_reason": writing.finish,
                    "logprobs": self._logprobs(tokens[index]),
                }
            )
        return self._head | {
            "choices": choices, "usage": self.usage, "ergo": self._about(candidates),
        }  # fmt: skip

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Yields the parts of the answer."""
        shape = self._head | {"object": "chat.completion.chunk"}

        def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any):
            choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
            return shape | {"choices": [choice | more]}

        count = 1 if self._vote else len(self.writings)
        for index in range(count):
            first = chunk(index, {"role": "assistant", "content": ""})
            yield first | ({"ergo": self._about()} if index == 0 else {})
        if self._vote:
            done = 0
            async for index, part in merged(self.writings):
                if part is not None:
                    continue
                done += 1
                writing = self.writings[index]
                short = {"done": done, "of": len(self.writings), "tokens": writing.tokens}
                yield shape | {"choices": [], "ergo": {"progress": short}}
            best, candidates = elect(self.writings, self.choice.decision.route.kind)
            winner = self.writings[best]
            if fields := self._chain_fields(winner):
                yield chunk(0, fields)
            yield chunk(0, {"content": winner.answer})
            yield chunk(0, {}, winner.finish) | {"ergo": self._about(candidates)}
        else:
            summed: set[int] = set()
            async for index, part in merged(self.writings):
                if part is None:
                    continue
                delta: dict[str, Any] = {}
                writing = self.writings[index]
                if part.chain and self._display == EXPLICIT:
                    delta |= {"reasoning": part.chain, "reasoning_content": part.chain}
                ends = bool(part.answer or writing.finish)
                if self._display == SUMMARY and ends and index not in summed:
                    summed.add(index)
                    delta |= self._chain_fields(writing)
                if part.answer:
                    delta["content"] = part.answer
                if delta or (part.tokens and self._request.logprobs):
                    yield chunk(index, delta, logprobs=self._logprobs(part.tokens))
            for index, writing in enumerate(self.writings):
                last = chunk(index, {}, writing.finish)
                yield last | ({"ergo": self._about()} if index == count - 1 else {})
        if self._request.wants_usage:
            yield shape | {"choices": [], "usage": self.usage}

    def _chain_fields(self, writing: Writing) -> dict[str, Any]:
        """Returns the fields of a message that show its chain, whole or summed up."""
        if self._display == HIDDEN or not writing.chain:
            return {}
        text = writing.chain if self._display == EXPLICIT else summarise(writing.chain)
        return {"reasoning": text, "reasoning_content": text}

    def _logprobs(self, tokens: list[Any]) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        top = self._request.top_logprobs or 0
        return bodies.chat_logprobs(self._checkpoint.vocabulary, tokens, top)

    def _about(self, candidates: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Returns the extension field: the route, the reason, and what was spent."""
        decision = self.choice.decision
        about: dict[str, Any] = {
            "route": decision.route.as_dict() | {"name": decision.route.name},
            "model": self._checkpoint.name,
            "why": decision.why,
            "predicted": {"accuracy": dict(decision.accuracy), "cost": dict(decision.cost)},
            "seconds": round(time.monotonic() - self._began, 3),
            "usage": self.usage,
        }
        return about | ({"candidates": candidates} if candidates else {})
