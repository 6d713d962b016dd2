"""Sends JSON over HTTP to a server that may be slow, busy, expensive or broken.

It adds retries, rate limits and metering to `http_client`; `openai_generator` builds on it.
"""

import dataclasses
import email.utils
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

from reasoning.server_client.api_limits import Cancelled, Ledger, RateLimiter
from reasoning.server_client.http_client import (
    LONGEST_KEY,
    DeadlineError,
    ExchangeError,
    HttpClient,
    Redactor,
    Reply,
    check_url,
)

T = TypeVar("T")

# HTTP statuses that may pass: timeouts, conflicts and rate limits.
_TRANSIENT = (408, 409, 425, 429)
# HTTP statuses that every other request would get too.
_FATAL = (401, 402, 403, 404, 405)
_LONGEST_WAIT_S = 60.0
# The most bytes of one token in an answer, with its log-prob and all escapes; then the most bytes
# of any answer and of a list of models.
_BYTES_PER_TOKEN = 2048
_LONGEST_ANSWER = 1 << 30
_LONGEST_LIST = 1 << 24
# The most tokens that the chat template of a server adds to a prompt.
_TEMPLATE_TOKENS = 8192


class ServerError(OSError):
    """The server did not answer a request. The message is one line with the reason and the remedy.

    Attributes:
      fatal: True if other requests would fail too (no such server, key or model); False if only
        this request fails.
    """

    def __init__(self, message: str, fatal: bool = False):
        super().__init__(message)
        self.fatal = fatal


@dataclasses.dataclass
class _Failure(Exception):
    """An attempt failed for a reason that may pass.

    Attributes:
      billed: whether the server may have worked for it.
      wait_s: the seconds that the server asks to wait.
    """

    reason: str
    billed: bool
    wait_s: float = 0.0


class ApiClient:
    """Posts JSON and gets JSON, with retries, rate limits and metering. Thread-safe.

    Args:
      url: the address of the API with its version, such as "http://localhost:8000/v1".
      version: what is added to the address of a bare host.
      api_key_env: the name of the environment variable that holds the key; "" sends no key. The key
        appears in no message, even if a server repeats it.
      timeout_s: the seconds that one attempt may take, from the address look-up to the last byte.
      attempts: how often a request is tried, the first attempt included.
      backoff_s: the longest wait before the second attempt, in seconds. It doubles with each
        further attempt, up to a minute, and the wait is drawn from 0.5 to 1 times that. The
        server's Retry-After is always waited for, unless it exceeds `timeout_s`.
      ledger: meters usage and enforces the cap on spending; a new one without a cap by default.
      limiter: enforces the limits per minute; none by default.

    Raises:
      ValueError: an address, number or key is not valid; the message is one line.
    """

    def __init__(
        self,
        url: str,
        *,
        version: str = "/v1",
        api_key_env: str = "",
        timeout_s: float = 600.0,
        attempts: int = 6,
        backoff_s: float = 1.0,
        ledger: Ledger | None = None,
        limiter: RateLimiter | None = None,
    ):
        parts = check_url(url, "server url")
        if attempts < 1 or timeout_s <= 0 or backoff_s < 0:
            raise ValueError(
                f"attempts={attempts}, timeout_s={timeout_s}, backoff_s={backoff_s}: give at least"
                " one attempt, a timeout above 0 and a backoff of at least 0"
            )
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else version)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = _read_key(api_key_env) if api_key_env else ""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http, self._redactor = HttpClient(headers), Redactor([key])
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self.ledger, self._limiter = ledger or Ledger(), limiter or RateLimiter()
        # This only spreads retries in time; no sample depends on it.
        self._jitter = random.Random()

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        parse: Callable[[Mapping[str, Any]], T],
        *,
        prompt_tokens: int,
        completion_tokens: int,
        stop: threading.Event,
        abandon: bool = False,
    ) -> T:
        """Sends a request and returns the parsed answer.

        Args:
          path: the path below the address of the API, such as "/completions".
          body: the fields of the request.
          parse: reads the answer. It raises `ValueError` or `LookupError` if the answer is
            incomplete, and the request is then repeated. It raises `ServerError` if a repetition
            would not help.
          prompt_tokens, completion_tokens: the most tokens that the request may use.
          stop: ends all waits between attempts when it is set.
          abandon: whether `stop` also ends an attempt that is under way. The server may charge for
            that attempt, and its answer is lost.

        Raises:
          ServerError: there is no answer after all attempts, or at once if more would not help.
          SpendingCapError: the request could exceed the cap on spending.
          Cancelled: `stop` was set.
        """
        encoded = json.dumps(body).encode()
        longest = _longest(completion_tokens)
        wait_s = 0.0
        for attempt in range(self._attempts):
            if attempt:
                self.ledger.retried()
                backoff = min(_LONGEST_WAIT_S, self._backoff_s * 2 ** (attempt - 1))
                wait_s = max(wait_s, backoff * self._jitter.uniform(0.5, 1))
            if stop.wait(wait_s):
                raise Cancelled
            self._limiter.acquire(prompt_tokens + completion_tokens, stop)
            reserved = self.ledger.reserve(prompt_tokens, completion_tokens, stop)
            try:
                reply = self._exchange("POST", path, encoded, longest, stop if abandon else None)
            except _Failure as failure:
                self.ledger.release(reserved, failure.billed)
                if abandon and stop.is_set():
                    raise Cancelled from None
                if failure.wait_s > self._timeout_s:
                    raise ServerError(
                        f"{self.url}{path}: {failure.reason}; the server asks to"
                        f" wait {failure.wait_s:.0f} s: try again after that",
                        fatal=True,
                    ) from None
                reason, wait_s = failure.reason, failure.wait_s
                continue
            except BaseException:
                self.ledger.release(reserved, billed=False)
                raise
            # The answer is paid for, whatever it holds.
            self.ledger.settle(reserved, *_usage(reply, prompt_tokens, completion_tokens))
            try:
                return parse(reply)
            except ServerError as error:
                raise ServerError(self.line(error), error.fatal) from None
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                fault = str(error) if type(error) is ValueError else f"it has no field {error}"
                reason, wait_s = f"the server sent an incomplete answer: {self.line(fault)}", 0.0
        times = f" ({self._attempts} attempts)" if self._attempts > 1 else ""
        raise ServerError(f"{self.url}{path}: {reason}{times}")

    def events(
        self, path: str, body: Mapping[str, Any], *, prompt_tokens: int, completion_tokens: int
    ) -> Iterator[Mapping[str, Any]]:
        """Yields the parts of an answer as the server sends them (server-sent events).

        It does not retry. If the server cannot stream, it sends a whole answer, which is then the
        only part.

        Args:
          path: the path below the address of the API.
          body: the fields of the request, with `"stream": true` to make the server stream.
          prompt_tokens, completion_tokens: the most tokens that the request may use; they count as
            used if the server reports no `usage`.

        Raises:
          ServerError: there is no answer, it broke off, or it has another form.
          SpendingCapError: the request could exceed the cap on spending.
        """
        never = threading.Event()
        self._limiter.acquire(prompt_tokens + completion_tokens, never)
        reserved = self.ledger.reserve(prompt_tokens, completion_tokens, never)
        used = prompt_tokens, completion_tokens
        pieces = self._http.stream(
            "POST", self.url + path, json.dumps(body).encode(),
            timeout_s=self._timeout_s, longest=_longest(completion_tokens),
        )  # fmt: skip
        try:
            # The first piece is the reply, and all others are bytes.
            reply, data = cast(Reply, next(pieces)), cast(Iterator[bytes], pieces)
            if not 200 <= reply.status < 300:
                raise self._http_failure(path, reply)
            if "event-stream" in reply.headers.get("content-type", ""):
                parts = map(self._decoded, _data_of(data))
            else:
                parts = iter([self._decoded(b"".join(data))])
            for part in parts:
                if part.get("usage"):
                    used = _usage(part, prompt_tokens, completion_tokens)
                yield part
        except _Failure as failure:
            raise ServerError(f"{self.url}{path}: {failure.reason}") from None
        except ExchangeError as error:
            reason = self.line(error)
            hint = "the answer broke off: " if error.sent else "check that the server runs: "
            raise ServerError(f"{self.url}{path}: {hint}{reason}") from None
        finally:
            pieces.close()
            self.ledger.settle(reserved, *used)

    def get(self, path: str) -> Mapping[str, Any]:
        """Sends one GET request, without retries, and returns its answer.

        Raises:
          ServerError: there is no answer; fatal.
        """
        try:
            return self._exchange("GET", path, None, _LONGEST_LIST)
        except _Failure as failure:
            raise ServerError(f"{self.url}{path}: {failure.reason}", fatal=True) from None

    def line(self, text: Any) -> str:
        """Turns text from a server into one short line without the key, for a message."""
        return self._redactor.line(text)

    def _exchange(self, method, path, encoded, longest, stop=None):
        """Returns the decoded answer if it is whole; else raises `_Failure` or `ServerError`."""
        try:
            reply = self._http.exchange(
                method, self.url + path, encoded, timeout_s=self._timeout_s, longest=longest,
                stop=stop,
            )  # fmt: skip
        except DeadlineError as error:
            raise _Failure(str(error), billed=True) from None
        except ExchangeError as error:
            reason = self.line(error)
            if error.sent:
                raise _Failure(f"the answer broke off: {reason}", billed=True) from None
            raise _Failure(f"{reason}: check that the server runs", billed=False) from None
        if not 200 <= reply.status < 300:
            raise self._http_failure(path, reply)
        if reply.is_cut:
            raise _Failure(f"the answer has more than {longest} bytes", billed=True)
        return self._decoded(reply.body)

    def _decoded(self, text: bytes) -> dict[str, Any]:
        """Returns the JSON object in a text; raises `_Failure` if it is none."""
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError):
            raise _Failure(f"the answer is not JSON: {self.line(text)!r}", billed=True) from None
        if not isinstance(decoded, dict):
            raise _Failure(f"the answer is no JSON object: {self.line(text)!r}", billed=True)
        return decoded

    def _http_failure(self, path, reply: Reply):
        """Returns the exception for an HTTP status."""
        code = reply.status
        status = f"HTTP {code}: {self.line(_message(reply.body) or reply.reason)}"
        if code in _TRANSIENT or code >= 500:
            wait_s = _retry_after(reply.headers.get("retry-after"))
            if code == 429:
                self._limiter.pause(min(wait_s, self._timeout_s))
            # A gateway may give up while the server behind it goes on working.
            return _Failure(status, billed=code in (502, 504), wait_s=wait_s)
        remedy = {
            400: "the model does not accept the request",
            401: "the server refuses the key: check the variable that api_key_env names",
            402: "the account has no credit: pay for more",
            403: "the key does not allow this request: use another key",
            404: "the server has no such model or path: check model and url",
            413: "the request is too long: shorten the prompt",
        }.get(code, "the server refuses the request")
        return ServerError(f"{self.url}{path}: {remedy} ({status})", fatal=code in _FATAL)


def _longest(completion_tokens: int) -> int:
    """Returns the most bytes that an answer of this many tokens may have."""
    return min(_LONGEST_ANSWER, (1 << 20) + _BYTES_PER_TOKEN * completion_tokens)


def _data_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the data of server-sent events, up to the event that ends them."""
    held = b""
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            name, _, value = line.strip().partition(b":")
            if name != b"data":  # A comment, the name of an event, or an empty line.
                continue
            if value.strip() == b"[DONE]":
                return
            yield value
    raise _Failure("the answer broke off", billed=True)


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"environment variable {variable} is not set: put the API key there")
    if not re.fullmatch(rf"[\x21-\x7e]{{1,{LONGEST_KEY}}}", key):
        raise ValueError(f"environment variable {variable} holds no API key: use printable ASCII")
    return key


def _message(body: bytes) -> str | bytes:
    """Returns the message in the body of an error, in any of the layouts that servers use."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return body
    for name in ("error", "message", "detail"):
        if isinstance(reply, dict) and name in reply:
            reply = reply[name]
    return reply if isinstance(reply, str) else json.dumps(reply)


def _retry_after(value: str | None) -> float:
    """Returns the seconds that a Retry-After header asks for (RFC 9110, 10.2.3).

    The header holds a number or a date.
    """
    if value is None:
        return 0.0
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _usage(reply: Mapping[str, Any], prompt_tokens: int, completion_tokens: int) -> tuple[int, int]:
    """Returns the (prompt, completion) tokens that an answer reports.

    If it reports none, or more than the request can have used, the most of the request counts.
    """
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    read = token_count(usage.get("prompt_tokens"), prompt_tokens + _TEMPLATE_TOKENS)
    generated = token_count(usage.get("completion_tokens"), completion_tokens)
    return (
        prompt_tokens if read is None else read,
        completion_tokens if generated is None else generated,
    )


def token_count(reported: Any, most: int) -> int | None:
    """Returns a number of tokens that a server reports, or None if it cannot be true.

    Args:
      reported: the value that the server sent.
      most: the largest number that can be true.
    """
    return reported if type(reported) is int and 0 <= reported <= most else None
