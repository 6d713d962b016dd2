"""Limits what a paid server is asked: a rate per minute, and a budget that is never exceeded."""

import collections
import dataclasses
import json
import math
import os
import threading
import time
from collections.abc import Mapping

_MINUTE_S = 60.0


class Cancelled(Exception):
    """A wait was given up because the work that it belongs to has stopped."""


class SpendingCapError(OSError):
    """The next request could cost more than is left; the message says how much is left."""


@dataclasses.dataclass(frozen=True)
class Prices:
    """The prices of a model per million tokens, in a currency of your choice.

    Attributes:
      prompt: the price of the tokens that the model reads.
      completion: the price of the tokens that it generates.

    Raises:
      ValueError: a price is not a finite number of at least 0.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name, value in (("prompt", self.prompt), ("completion", self.completion)):
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(
                    f"the price of {name} tokens is {value!r}: give a number of at least 0"
                )

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Returns the cost of these token counts."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


def load_prices(path: str | os.PathLike[str], model: str) -> Prices:
    """Reads the prices of a model from a JSON table.

    The table has the form `{"model": {"prompt": 0.5, "completion": 2}, ...}`.

    Raises:
      FileNotFoundError, ValueError: the file, the model or its numbers are missing; the message is
        one line.
    """
    with open(path, encoding="utf-8") as file:
        try:
            table = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(table, Mapping) or model not in table:
        known = ", ".join(table) if isinstance(table, Mapping) else "no models"
        raise ValueError(f"{path} has no prices of model {model!r}: it has {known or 'none'}")
    try:
        return Prices(**table[model])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, model {model!r}: {error}") from None


@dataclasses.dataclass
class Usage:
    """The usage so far, as the server reports it.

    Attributes:
      requests: the number of answered requests.
      retries: the number of attempts that failed and were repeated.
      prompt_tokens, completion_tokens: the tokens of the answered requests.
      cost: the cost of these tokens; 0 without prices.
      unconfirmed_cost: the most that attempts may have cost which ended without an answer after the
        server had begun to work; it counts towards the cap.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unconfirmed_cost: float = 0.0


class Ledger:
    """Meters usage and keeps spending below a cap, whatever the server answers. Thread-safe.

    Before a request is sent, the ledger reserves the most that it may cost, so requests in flight
    together cannot exceed the cap either.

    Args:
      prices: the prices of the model; None if requests cost nothing.
      max_cost: the cap in the currency of `prices`; None for no cap.

    Attributes:
      spent_before: what earlier runs spent under the same cap; may be set before the first request.

    Raises:
      ValueError: the cap is not above 0, or it has no prices.
    """

    def __init__(self, prices: Prices | None = None, max_cost: float | None = None):
        if max_cost is not None and prices is None:
            raise ValueError(f"max_cost={max_cost:g} needs prices: give the prices of the model")
        if max_cost is not None and not max_cost > 0:
            raise ValueError(f"max_cost={max_cost:g} allows nothing: give a number above 0")
        self.prices, self.max_cost, self.usage = prices, max_cost, Usage()
        self.spent_before = self._reserved = 0.0
        self._changed = threading.Condition()

    def reserve(self, prompt_tokens: int, completion_tokens: int, stop: threading.Event) -> float:
        """Reserves the most that a request may cost, and returns that amount.

        If the requests in flight decide whether the cap allows it, this waits for them.

        Raises:
          SpendingCapError: the cap does not allow the request.
          Cancelled: `stop` was set while it waited.
        """
        most = self._cost(prompt_tokens, completion_tokens)
        with self._changed:
            while self.max_cost is not None:
                left = self.max_cost - self.spent
                if most <= left - self._reserved:
                    break
                if most > left or not self._reserved:
                    raise SpendingCapError(
                        f"spending cap: {self.spent:.6g} of max_cost={self.max_cost:g} is spent and"
                        f" the next request may cost {most:.6g}: raise max_cost to go on"
                    )
                if stop.is_set():
                    raise Cancelled
                self._changed.wait(0.1)
            self._reserved += most
        return most

    def settle(self, reserved: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Records an answer with the tokens that it used, in place of its reservation."""
        with self._changed:
            self._reserved -= reserved
            self.usage.requests += 1
            self.usage.prompt_tokens += prompt_tokens
            self.usage.completion_tokens += completion_tokens
            self.usage.cost += self._cost(prompt_tokens, completion_tokens)
            self._changed.notify_all()

    def release(self, reserved: float, billed: bool) -> None:
        """Takes back a reservation whose request got no answer.

        Args:
          reserved: the amount that `reserve` returned.
          billed: whether the server may charge for the request anyway.
        """
        with self._changed:
            self._reserved -= reserved
            if billed:
                self.usage.unconfirmed_cost += reserved
            self._changed.notify_all()

    def retried(self) -> None:
        """Counts one repeated attempt."""
        with self._changed:
            self.usage.retries += 1

    @property
    def spent(self) -> float:
        """Returns all spending so far, with that of earlier runs and of unconfirmed attempts."""
        return self.spent_before + self.usage.cost + self.usage.unconfirmed_cost

    def _cost(self, prompt_tokens, completion_tokens):
        return self.prices.cost(prompt_tokens, completion_tokens) if self.prices else 0.0


class RateLimiter:
    """Keeps the requests and tokens of any 60 seconds below limits, and pauses on demand.

    Thread-safe. It counts tokens as servers do: when a request is sent, its prompt plus the most
    tokens that it may generate.

    Args:
      requests_per_minute, tokens_per_minute: the limits; None for no limit.

    Raises:
      ValueError: a limit is below 1.
    """

    def __init__(
        self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None
    ):
        for name, limit in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            if limit is not None and limit < 1:
                raise ValueError(
                    f"{name}={limit} allows nothing: give at least 1, or None for no limit"
                )
        self._most_requests, self._most_tokens = requests_per_minute, tokens_per_minute
        self._sent: collections.deque[tuple[float, int]] = collections.deque()
        self._tokens = 0
        self._not_before = -math.inf
        self._lock = threading.Lock()

    def acquire(self, tokens: int, stop: threading.Event) -> None:
        """Waits until a request of this many tokens may be sent.

        Raises:
          ValueError: the request exceeds the limit of a whole minute.
          Cancelled: `stop` was set while it waited.
        """
        if self._most_tokens is not None and tokens > self._most_tokens:
            raise ValueError(
                f"a request of up to {tokens} tokens exceeds tokens_per_minute="
                f"{self._most_tokens}: lower max_new_tokens or num_samples, or raise the limit"
            )
        while wait := self._try(tokens):
            if stop.wait(wait):
                raise Cancelled

    def pause(self, seconds: float) -> None:
        """Lets no request start within the next `seconds`."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _try(self, tokens):
        """Counts a request as sent and returns 0, or returns the seconds until the next try."""
        with self._lock:
            now = time.monotonic()
            while self._sent and self._sent[0][0] <= now - _MINUTE_S:
                self._tokens -= self._sent.popleft()[1]
            full = self._most_requests is not None and len(self._sent) >= self._most_requests
            full |= self._most_tokens is not None and self._tokens + tokens > self._most_tokens
            wait = max(self._not_before - now, self._sent[0][0] + _MINUTE_S - now if full else 0.0)
            if wait > 0:
                return wait
            if self._most_requests is not None or self._most_tokens is not None:
                self._sent.append((now, tokens))
                self._tokens += tokens
            return 0.0
