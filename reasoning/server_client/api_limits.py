"""What a paid server may be asked: rates per minute, and a budget that is never exceeded."""

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
    """A wait was given up because the work it belongs to has stopped."""


class SpendingCapError(OSError):
    """The next request could cost more than is left; the message says how much is."""


@dataclasses.dataclass(frozen=True)
class Prices:
    """What a model costs, in a currency of your choice per million tokens.

    Attributes:
      prompt: of the tokens read.
      completion: of the tokens generated.
    """

    prompt: float
    completion: float

    def __post_init__(self):
        for name, value in (("prompt", self.prompt), ("completion", self.completion)):
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(f"price of {name} tokens is {value!r}: give a number from 0")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


def load_prices(path: str | os.PathLike, model: str) -> Prices:
    """The prices of a model from a table, JSON: `{"model": {"prompt": 0.5, "completion": 2}, ...}`.

    Raises:
      FileNotFoundError, ValueError: no such file or model, or no such numbers; one line.
    """
    with open(path, encoding="utf-8") as file:
        try:
            table = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path}: no JSON: {error}") from None
    if not isinstance(table, Mapping) or model not in table:
        known = ", ".join(table) if isinstance(table, Mapping) else "no models"
        raise ValueError(f"{path} has no prices of model {model!r}: it has {known or 'none'}")
    try:
        return Prices(**table[model])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, model {model!r}: {error}") from None


@dataclasses.dataclass
class Usage:
    """What has been used so far, as the server reports it.

    Attributes:
      requests: answered ones.
      retries: attempts that failed and were repeated.
      prompt_tokens, completion_tokens: of the answered ones.
      cost: of these tokens; 0 without prices.
      unconfirmed_cost: the most that attempts may have cost that broke off without an answer after
        the server had begun to work; counts towards the cap.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unconfirmed_cost: float = 0.0


class Ledger:
    """Meters usage and keeps spending below a cap, whatever the server answers.

    The most that a request may cost is set aside before it is sent, so requests in flight together
    cannot exceed the cap either. Thread-safe.

    Args:
      prices: None where requests cost nothing.
      max_cost: the cap, in the currency of `prices`; None is none.

    Attributes:
      spent_before: by earlier runs under the same cap; may be set before the first request.
    """

    def __init__(self, prices: Prices | None = None, max_cost: float | None = None):
        if max_cost is not None and prices is None:
            raise ValueError(f"max_cost={max_cost:g} needs prices: give the price of the model")
        if max_cost is not None and not max_cost > 0:
            raise ValueError(f"max_cost={max_cost:g} allows nothing: give a number above 0")
        self.prices, self.max_cost, self.usage = prices, max_cost, Usage()
        self.spent_before = self._reserved = 0.0
        self._changed = threading.Condition()

    def reserve(self, prompt_tokens: int, completion_tokens: int, stop: threading.Event) -> float:
        """Sets aside what a request may cost at most; waits while those in flight decide whether
        it can be afforded.

        Raises:
          SpendingCapError: it cannot.
          Cancelled: `stop` was set meanwhile.
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
        """An answer came, and says what it used."""
        with self._changed:
            self._reserved -= reserved
            self.usage.requests += 1
            self.usage.prompt_tokens += prompt_tokens
            self.usage.completion_tokens += completion_tokens
            self.usage.cost += self._cost(prompt_tokens, completion_tokens)
            self._changed.notify_all()

    def release(self, reserved: float, billed: bool) -> None:
        """No answer came.

        Args:
          billed: whether the server may bill it nevertheless.
        """
        with self._changed:
            self._reserved -= reserved
            if billed:
                self.usage.unconfirmed_cost += reserved
            self._changed.notify_all()

    def retried(self) -> None:
        with self._changed:
            self.usage.retries += 1

    @property
    def spent(self) -> float:
        return self.spent_before + self.usage.cost + self.usage.unconfirmed_cost

    def _cost(self, prompt_tokens, completion_tokens):
        return self.prices.cost(prompt_tokens, completion_tokens) if self.prices else 0.0


class RateLimiter:
    """Keeps requests and tokens of any 60 seconds below limits, and pauses when asked to.

    Thread-safe. Tokens are counted as a server counts them: prompt plus the most that may be
    generated, when a request is sent.

    Args:
      requests_per_minute, tokens_per_minute: None is no limit.
    """

    def __init__(
        self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None
    ):
        for name, limit in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            if limit is not None and limit < 1:
                raise ValueError(f"{name}={limit} allows nothing: give a number from 1, or None")
        self._most_requests, self._most_tokens = requests_per_minute, tokens_per_minute
        self._sent: collections.deque[tuple[float, int]] = collections.deque()
        self._tokens = 0
        self._not_before = -math.inf
        self._lock = threading.Lock()

    def acquire(self, tokens: int, stop: threading.Event) -> None:
        """Waits until a request of so many tokens may be sent.

        Raises:
          ValueError: it never may.
          Cancelled: `stop` was set meanwhile.
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
        """No request starts within so many seconds."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _try(self, tokens):
        """Seconds to wait before the next try; 0 where the request is counted as sent."""
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
