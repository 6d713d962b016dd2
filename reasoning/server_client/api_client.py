"""JSON over HTTP to a server that may be slow, busy, expensive or broken."""

import dataclasses
import email.utils
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

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

# Statuses that may pass: timeouts, conflicts, rate limits and the server's own troubles.
_TRANSIENT = (408, 409, 425, 429)
# Statuses that every other request would get as well.
_FATAL = (401, 402, 403, 404, 405)
_LONGEST_WAIT_S = 60.0
# The most bytes of a token in an answer, with its log-prob and all escapes; and of any answer.
_BYTES_PER_TOKEN = 2048
_LONGEST_ANSWER = 1 << 30
_LONGEST_LIST = 1 << 24
# The most tokens that a server's chat template adds to what it is sent.
_TEMPLATE_TOKENS = 8192


class ServerError(OSError):
    """The server did not answer a request; one line that says why and what to do.

    Attributes:
      fatal: whether other requests would fail as well (no such server, key or model); else it is
        this request's own trouble.
    """

    def __init__(self, message: str, fatal: bool = False):
        super().__init__(message)
        self.fatal = fatal


@dataclasses.dataclass
class _Failure(Exception):
    """An attempt failed in a way that may pass.

    Attributes:
      billed: whether the server may have worked for it.
      wait_s: what the server asks to wait.
    """

    reason: str
    billed: bool
    wait_s: float = 0.0


class ApiClient:
    """Posts JSON and gets JSON, with retries, rate limits and metering. Thread-safe.

    Args:
      url: of the API, with its version, e.g. "http://localhost:8000/v1"; "/v1" is added to a bare
        host.
      api_key_env: name of the environment variable that holds the key; "" sends none. The key
        appears in no message, wherever a server repeats it.
      timeout_s: seconds that one attempt may take, from looking up the address to the last byte.
      attempts: at a request, the first included.
      backoff_s: wait before the second attempt at most; doubles with each, up to a minute, and is
        drawn from 0.5 to 1 times that. The server's Retry-After is waited for in any case, unless
        it exceeds `timeout_s`.

    Raises:
      ValueError: a bad address, number or key; one line.
    """

    def __init__(
        self,
        url: str,
        *,
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
                f"attempts={attempts}, timeout_s={timeout_s}, backoff_s={backoff_s}: need at least"
                " one attempt, a timeout above 0 and a backoff from 0"
            )
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = _read_key(api_key_env) if api_key_env else ""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http, self._redactor = HttpClient(headers), Redactor([key])
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self.ledger, self._limiter = ledger or Ledger(), limiter or RateLimiter()
        # Only spreads retries in time; nothing that is sampled depends on it.
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
    ) -> T:
        """The parsed answer to a request.

        Args:
          parse: raises `ValueError` or `LookupError` on an answer that is not whole, which is then
            asked for again, and `ServerError` on one that it is no use to ask for again.
          prompt_tokens, completion_tokens: the most that the request may use.
          stop: ends all waiting when set.

        Raises:
          ServerError: no answer, after all attempts or at once where more would not help.
          SpendingCapError: the request may exceed the cap.
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
                reply = self._exchange("POST", path, encoded, longest)
            except _Failure as failure:
                self.ledger.release(reserved, failure.billed)
                if failure.wait_s > self._timeout_s:
                    raise ServerError(
                        f"{self.url}{path}: {failure.reason}; it asks to wait"
                        f" {failure.wait_s:.0f} s: try again then",
                        fatal=True,
                    ) from None
                reason, wait_s = failure.reason, failure.wait_s
                continue
            except BaseException:
                self.ledger.release(reserved, billed=False)
                raise
            # Paid for, whatever it holds.
            self.ledger.settle(reserved, *_usage(reply, prompt_tokens, completion_tokens))
            try:
                return parse(reply)
            except ServerError as error:
                raise ServerError(self.line(error), error.fatal) from None
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                fault = str(error) if type(error) is ValueError else f"no field {error}"
                reason, wait_s = f"an incomplete answer: {self.line(fault)}", 0.0
        times = f" ({self._attempts} attempts)" if self._attempts > 1 else ""
        raise ServerError(f"{self.url}{path}: {reason}{times}")

    def events(
        self, path: str, body: Mapping[str, Any], *, prompt_tokens: int, completion_tokens: int
    ) -> Iterator[Mapping[str, Any]]:
        """Yields the parts of an answer as the server sends them (server-sent events); asked once.

        A server that knows no such answers sends a whole one, which is then the only part.

        Args:
          body: with what makes the server stream, `"stream": true`.
          prompt_tokens, completion_tokens: the most that the request may use; as much is taken as
            used where the server reports no `usage`.

        Raises:
          ServerError: no answer, one that broke off, or one of another form.
          SpendingCapError: the request may exceed the cap.
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
            reply = next(pieces)
            if not 200 <= reply.status < 300:
                raise self._http_failure(path, reply)
            if "event-stream" in reply.headers.get("content-type", ""):
                parts = map(self._decoded, _data_of(pieces))
            else:
                parts = iter([self._decoded(b"".join(pieces))])
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
        """The answer to a GET, asked once.

        Raises:
          ServerError: there is none; fatal.
        """
        try:
            return self._exchange("GET", path, None, _LONGEST_LIST)
        except _Failure as failure:
            raise ServerError(f"{self.url}{path}: {failure.reason}", fatal=True) from None

    def line(self, text: Any) -> str:
        """A server's text for a message: one short line without the key."""
        return self._redactor.line(text)

    def _exchange(self, method, path, encoded, longest):
        """The decoded answer, whole; raises `_Failure` or `ServerError`."""
        try:
            reply = self._http.exchange(
                method, self.url + path, encoded, timeout_s=self._timeout_s, longest=longest
            )
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
            raise _Failure(f"an answer of more than {longest} bytes", billed=True)
        return self._decoded(reply.body)

    def _decoded(self, text: bytes) -> dict[str, Any]:
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError):
            raise _Failure(f"no JSON: {self.line(text)!r}", billed=True) from None
        if not isinstance(decoded, dict):
            raise _Failure(f"no JSON object: {self.line(text)!r}", billed=True)
        return decoded

    def _http_failure(self, path, reply: Reply):
        """The exception that an HTTP status stands for."""
        code = reply.status
        status = f"HTTP {code}: {self.line(_message(reply.body) or reply.reason)}"
        if code in _TRANSIENT or code >= 500:
            wait_s = _retry_after(reply.headers.get("retry-after"))
            if code == 429:
                self._limiter.pause(min(wait_s, self._timeout_s))
            # Gateways give up on servers that go on working.
            return _Failure(status, billed=code in (502, 504), wait_s=wait_s)
        remedy = {
            400: "the request does not suit the model",
            401: "the key is refused: check the variable that api_key_env names",
            402: "the account has no credit",
            403: "the key may not do this",
            404: "no such model or path: check model and url",
            413: "the request is too long",
        }.get(code, "the server refuses the request")
        return ServerError(f"{self.url}{path}: {remedy} ({status})", fatal=code in _FATAL)


def _longest(completion_tokens: int) -> int:
    """Bytes of an answer with so many tokens."""
    return min(_LONGEST_ANSWER, (1 << 20) + _BYTES_PER_TOKEN * completion_tokens)


def _data_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events, up to the one that says that all is done."""
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
        raise ValueError(f"environment variable {variable} holds no API key: it has odd characters")
    return key


def _message(body: bytes) -> str | bytes:
    """What an error's body says, in any of the layouts that servers use."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return body
    for name in ("error", "message", "detail"):
        if isinstance(reply, dict) and name in reply:
            reply = reply[name]
    return reply if isinstance(reply, str) else json.dumps(reply)


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return 0.0
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _usage(reply: Mapping[str, Any], prompt_tokens: int, completion_tokens: int) -> tuple[int, int]:
    """(prompt, completion) tokens that an answer reports.

    Where it reports none, or more than the request can have used, the most of the request.
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
    """A number of tokens as a server reports it; None unless that can be true."""
    return reported if type(reported) is int and 0 <= reported <= most else None
