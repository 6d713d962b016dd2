"""Samples from a server over HTTP: vLLM, SGLang, or any other with OpenAI's interface."""

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import Completion, fold_seed
from reasoning.server_client.api_client import ApiClient, ServerError, token_count
from reasoning.server_client.api_limits import Cancelled, Ledger
from reasoning.server_client.replies import (
    BYTES_PER_TOKEN,
    chat_text,
    plain_text,
    shares,
    streamed_text,
    tokens_of,
)

Messages = Sequence[Mapping[str, str]]

# Stands in `Completion.token_ids` for each token whose id the server does not report.
UNKNOWN_TOKEN = -1
# The most tokens that a chat template puts around a message.
_TOKENS_PER_MESSAGE = 32
_POLL_S = 0.2


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to sample from.

    Attributes:
      prompt: a text, or the messages of a chat.
      seed: the seed for the server, which decides how exactly it follows it.
    """

    prompt: str | Messages
    seed: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The usage that a call would cause.

    Attributes:
      requests: the number of prompts.
      prompt_tokens: an estimate, at four bytes per token.
      completion_tokens: the most that the call may generate.
      cost: the cost of these tokens; 0 without prices.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class OpenAIGenerator:
    """Samples from a server, behind the `Generator` interface.

    `generate` sends prompts unchanged to `/completions`, or each as a user message to
    `/chat/completions`; `chat` sends messages. The results differ from those of the compiled
    sampler in three points. First, token ids are `UNKNOWN_TOKEN` unless the server reports them
    (vLLM does). Their number is the number of tokens paid for; if a prompt has several samples and
    the server reports only the sum, they share it in proportion to their length. Second, `logprobs`
    are None unless they are requested, the server reports them, and the temperature is 1 or 0,
    because servers report log-probs of the unscaled distribution. Third, a chain of thought that
    the server returns separately stands in `<think>` tags before the text.

    Args:
      client: the connection, with its limits and budget.
      model: the name that the server gives the model.
      chat: whether `generate` uses the chat interface.
      logprobs: whether to request log-probs.
      server_stops: whether the server applies the stop strings. It must then say which one it met
        (vLLM and SGLang do). Otherwise the text is cut here, and the tokens after the cut are paid
        for.
      concurrency: the number of requests in flight.
      extra: fields to add to every request or replace in it, such as `{"reasoning_effort":
        "high"}`; None as a value removes a field.

    Raises:
      ValueError: the model has no name, or `concurrency` is below 1.
    """

    def __init__(
        self,
        client: ApiClient,
        model: str,
        *,
        chat: bool = False,
        logprobs: bool = False,
        server_stops: bool = True,
        concurrency: int = 16,
        extra: Mapping[str, Any] = {},
    ):
        if not model:
            raise ValueError("model is empty: give the name that the server uses for it")
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: give at least 1 request in flight")
        self.client, self.model, self.uses_chat = client, model, chat
        self._logprobs, self._server_stops = logprobs, server_stops
        self._concurrency, self._extra = concurrency, dict(extra)

    @property
    def ledger(self) -> Ledger:
        """Returns the record of usage and spending so far."""
        return self.client.ledger

    def check(self) -> None:
        """Checks that the server is there, accepts the key and has the model.

        Raises:
          ServerError: a check failed; the message is one line, and there are no retries.
        """
        try:
            listed = self.client.get("/models").get("data")
            names = [entry["id"] for entry in listed or () if isinstance(entry["id"], str)]
        except ServerError as error:
            if "HTTP 404" in str(error) or "HTTP 405" in str(error):
                return  # The server has no list of models; the first request will show.
            raise
        except (TypeError, LookupError):
            return
        if names and self.model not in names:
            known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise ServerError(
                f"{self.client.url} has no model {self.model!r}: it has {self.client.line(known)}",
                fatal=True,
            )

    def estimate(
        self, prompts: Iterable[str | Messages], *, num_samples: int = 1, max_new_tokens: int
    ) -> Estimate:
        """Estimates the usage of a call: completion tokens at most, prompt tokens approximately."""
        sizes = [_most_prompt_tokens(prompt) for prompt in prompts]
        prompt_tokens = sum(-(-size // BYTES_PER_TOKEN) for size in sizes)
        completion_tokens = len(sizes) * num_samples * max_new_tokens
        prices = self.ledger.prices
        cost = prices.cost(prompt_tokens, completion_tokens) if prices else 0.0
        return Estimate(len(sizes), prompt_tokens, completion_tokens, cost)

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Messages],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[list[Completion]]:
        """Samples from each prompt; see `Generator`.

        It returns all samples or none; use `stream` to keep the samples that came before a failure.

        Raises:
          ServerError: the server refused a prompt or did not answer it.
          SpendingCapError: the call could cost more than is left.
        """
        requests = [Request(prompt, fold_seed(seed, i)) for i, prompt in enumerate(prompts)]
        results: list[list[Completion]] = [[] for _ in requests]
        answers = self.stream(
            requests,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
        )
        for i, result in answers:
            if isinstance(result, list) and len(result) < num_samples:
                result = ServerError(
                    f"{self.client.url} gave {len(result)} of {num_samples} samples"
                )
            if isinstance(result, ServerError):
                answers.close()
                raise result
            results[i] = result
        return results

    def chat(self, conversations: Sequence[Messages], **arguments: Any) -> list[list[Completion]]:
        """Samples from conversations like `generate`, each a list of `{"role", "content"}`."""
        return self.generate(conversations, **arguments)

    def stream_chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
        seed: int = 0,
    ) -> Iterator[str]:
        """Yields the text of one reply to a conversation as it arrives.

        A chain of thought stands in think tags.

        Raises:
          ServerError: the server refused, or the reply broke off.
          SpendingCapError: the reply could cost more than is left.
        """
        body = {
            **self._fields(sampling), "max_tokens": max_new_tokens, "seed": seed,
            "messages": list(messages), "stream": True, "stream_options": {"include_usage": True},
        } | self._extra  # fmt: skip
        parts = self.client.events(
            "/chat/completions",
            {name: value for name, value in body.items() if value is not None},
            prompt_tokens=_most_prompt_tokens(messages),
            completion_tokens=max_new_tokens,
        )
        try:
            yield from streamed_text(parts)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ServerError(f"{self.client.url}: a part of its reply has no known form") from None

    def stream(
        self,
        requests: Iterable[Request],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
        stop: Sequence[str] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, list[Completion] | ServerError]]:
        """Yields `(index of the request, its samples)` in the order in which answers arrive.

        If a request fails and others need not fail, this yields its error. If it fails after the
        server has given some of its samples, which are paid for, this yields those samples.
        Requests are taken from the iterable as places become free.

        Args:
          requests: the requests, in any number.
          num_samples: the samples of each request.
          max_new_tokens: the most tokens of a sample.
          sampling: how the server samples.
          stop: strings that end a sample.
          should_stop: called several times a second; once it returns True, no further request is
            sent and the answers in flight are the last.

        Raises:
          ServerError, SpendingCapError, ValueError: an error that stops all requests. It is raised
            after the answers in flight, which are paid for, have been yielded.
        """
        if num_samples < 1 or max_new_tokens < 1:
            raise ValueError(
                f"num_samples={num_samples}, max_new_tokens={max_new_tokens}: give at least 1"
            )
        job = _Job(self, num_samples, max_new_tokens, sampling, tuple(stop), self._fields(sampling))
        waiting, running = enumerate(requests), {}
        halt, fault = threading.Event(), None
        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
            try:
                while True:
                    if should_stop():
                        halt.set()
                    while not halt.is_set() and len(running) < self._concurrency:
                        index, request = next(waiting, (None, None))
                        if request is None:
                            break
                        running[pool.submit(job.run, request, halt)] = index
                    if not running:
                        break
                    done, _ = concurrent.futures.wait(
                        running, _POLL_S, return_when=concurrent.futures.FIRST_COMPLETED
                    )
                    for future in done:
                        index, error = running.pop(future), future.exception()
                        if error is None:
                            yield index, future.result()
                        elif isinstance(error, ServerError) and not error.fatal:
                            yield index, error
                        elif not isinstance(error, Cancelled):
                            fault = fault or error
                            halt.set()
            finally:
                halt.set()
                for future in running:
                    future.cancel()
        if fault is not None:
            raise fault

    def _fields(self, sampling: SamplingParams) -> dict[str, Any]:
        fields = {"model": self.model, "temperature": sampling.temperature}
        fields["top_p"] = sampling.top_p
        # OpenAI lacks these fields; vLLM and SGLang have them. They are sent only if used.
        if sampling.top_k:
            fields["top_k"] = sampling.top_k
        if sampling.min_p:
            fields["min_p"] = sampling.min_p
        return fields


@dataclasses.dataclass(frozen=True)
class _Job:
    """The settings that all requests of one call share."""

    owner: OpenAIGenerator
    num_samples: int
    max_new_tokens: int
    sampling: SamplingParams
    stop: tuple[str, ...]
    fields: Mapping[str, Any]

    def run(self, request: Request, halt: threading.Event) -> list[Completion]:
        """Returns all samples of a request; asks again if the server gives fewer at a time."""
        samples: list[Completion] = []
        while len(samples) < self.num_samples:
            missing = self.num_samples - len(samples)
            seed = fold_seed(request.seed, len(samples)) if samples else request.seed
            try:
                samples += self._ask(request.prompt, missing, seed, halt)[:missing]
            except (OSError, Cancelled):
                if not samples:
                    raise
                break
        return samples

    def _ask(self, prompt, count, seed, halt):
        owner = self.owner
        chat = owner.uses_chat or not isinstance(prompt, str)
        body = {**self.fields, "max_tokens": self.max_new_tokens, "n": count, "seed": seed}
        if chat:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            body["messages"] = list(messages)
        else:
            body["prompt"] = prompt
        if self.stop and owner._server_stops:
            body["stop"] = list(self.stop)
        if owner._logprobs:
            body["logprobs"] = True if chat else 1
        body |= owner._extra
        return owner.client.post(
            "/chat/completions" if chat else "/completions",
            {name: value for name, value in body.items() if value is not None},
            lambda reply: self._completions(reply, chat, count),
            prompt_tokens=_most_prompt_tokens(prompt),
            completion_tokens=count * self.max_new_tokens,
            stop=halt,
        )

    def _completions(self, reply: Mapping[str, Any], chat: bool, asked: int) -> list[Completion]:
        choices = reply["choices"]
        if not isinstance(choices, list) or not choices:
            raise ValueError("it has no choices with samples")
        choices = choices[:asked]
        texts = [chat_text(choice) if chat else plain_text(choice["text"]) for choice in choices]
        tokens = [tokens_of(choice, self.max_new_tokens) for choice in choices]
        usage = reply.get("usage")
        total = usage.get("completion_tokens") if isinstance(usage, dict) else None
        counts = shares(token_count(total, asked * self.max_new_tokens), texts)
        completions = []
        for choice, text, (ids, logprobs), count in zip(choices, texts, tokens, counts):
            text, finish = self._finish(choice, text)
            if ids is None:
                ids = [UNKNOWN_TOKEN] * (count if logprobs is None else len(logprobs))
            if logprobs is not None and len(logprobs) != len(ids):
                raise ValueError(f"{len(logprobs)} logprobs for {len(ids)} tokens")
            # Servers report log-probs of the unscaled distribution.
            if self.sampling.temperature not in (0, 1):
                logprobs = None
            completions.append(Completion(text, ids, logprobs, finish))
        return completions

    def _finish(self, choice, text):
        """Returns the text up to and including a stop string, and how the text ended."""
        reason = choice["finish_reason"]
        if reason is None:
            raise ValueError("a sample has no end")
        if reason not in ("stop", "length"):
            said = self.owner.client.line(reason)
            raise ServerError(f"{self.owner.client.url}: a sample ended by {said!r}")
        finish = "length" if reason == "length" else "stop"
        if not self.stop:
            return text, finish
        # If the server applied the stop strings, this finds one only if the server kept it.
        ends = [(text.find(each) + len(each), each) for each in self.stop if each in text]
        if ends:
            return text[: min(ends)[0]], "stop_string"
        if not self.owner._server_stops or finish == "length":
            return text, finish
        if "stop_reason" not in choice and "matched_stop" not in choice:
            raise ServerError(
                f"{self.owner.client.url} does not say which stop string ended a sample: set"
                " server_stops=False to cut the text here",
                fatal=True,
            )
        met = choice.get("stop_reason", choice.get("matched_stop"))
        # From vLLM, this may also be the number of a token.
        return (text + met, "stop_string") if met in self.stop else (text, finish)


def _most_prompt_tokens(prompt: str | Messages) -> int:
    if isinstance(prompt, str):
        return len(prompt.encode()) + _TOKENS_PER_MESSAGE
    return sum(_most_prompt_tokens(str(message["content"])) for message in prompt)
