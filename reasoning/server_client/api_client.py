"""JSON over HTTP to a server that may be slow, busy, expensive or broken."""

import dataclasses
import email.utils
import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from reasoning.server_client.api_limits import Cancelled, Ledger, RateLimiter

T = TypeVar("T")

# Statuses that may pass: timeouts, conflicts, rate limits and the server's own troubles.
_TRANSIENT = (408, 409, 425, 429)
# Statuses that every other request would get as well.
_FATAL = (401, 402, 403, 404, 405)
_LONGEST_WAIT_S = 60.0
_CHUNK_BYTES = 1 << 16


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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Following one would carry the API key to another address."""

    def redirect_request(self, *args):
        return None


class ApiClient:
    """Posts JSON and gets JSON, with retries, rate limits and metering. Thread-safe.

    Args:
      url: of the API, with its version, e.g. "http://localhost:8000/v1"; "/v1" is added to a bare
        host.
      api_key_env: name of the environment variable that holds the key; "" sends none. The key
        appears in no message.
      timeout_s: seconds that one attempt may take.
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
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"server url {url!r}: give an address such as http://localhost:8000")
        if "@" in parts.netloc:
            raise ValueError("server url holds a password: give the key by api_key_env instead")
        if attempts < 1 or timeout_s <= 0 or backoff_s < 0:
            raise ValueError(
                f"attempts={attempts}, timeout_s={timeout_s}, backoff_s={backoff_s}: need at least"
                " one attempt, a timeout above 0 and a backoff from 0"
            )
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._key = _read_key(api_key_env) if api_key_env else ""
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self.ledger, self._limiter = ledger or Ledger(), limiter or RateLimiter()
        self._open = urllib.request.build_opener(_NoRedirects).open
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
        # Tokens are rarely shorter than a byte; logprobs and escapes multiply that.
        longest = (1 << 20) + 4096 * completion_tokens
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
                reply = self._exchange(path, encoded, longest)
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
            used = _usage(reply) or (prompt_tokens, completion_tokens)
            self.ledger.settle(reserved, *used)
            try:
                return parse(reply)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                fault = str(error) if type(error) is ValueError else f"no field {error}"
                reason, wait_s = f"an incomplete answer: {self._line(fault)}", 0.0
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
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), self._headers
        )
        deadline = time.monotonic() + self._timeout_s
        self._limiter.acquire(prompt_tokens + completion_tokens, threading.Event())
        reserved = self.ledger.reserve(prompt_tokens, completion_tokens, threading.Event())
        used = prompt_tokens, completion_tokens
        try:
            with self._open(request, timeout=self._timeout_s) as response:
                longest = (1 << 20) + 4096 * completion_tokens
                for part in self._parts(response, longest, deadline):
                    used = _usage(part) or used
                    yield part
        except urllib.error.HTTPError as error:
            with error:
                failure = self._http_failure(path, error)
            if isinstance(failure, _Failure):
                failure = ServerError(f"{self.url}{path}: {failure.reason}")
            raise failure from None
        except _Failure as failure:
            raise ServerError(f"{self.url}{path}: {failure.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = self._line(str(getattr(error, "reason", error)) or type(error).__name__)
            raise ServerError(f"{self.url}{path}: the answer broke off: {reason}") from None
        finally:
            self.ledger.settle(reserved, *used)

    def _parts(self, response, longest: int, deadline: float) -> Iterator[Mapping[str, Any]]:
        if "event-stream" not in response.headers.get("Content-Type", ""):
            yield self._decoded(self._read(response, longest, deadline))
            return
        size, ended = 0, False
        while not ended and (line := response.readline(longest)):
            size += len(line)
            if size > longest:
                raise _Failure(f"an answer of more than {longest} bytes", billed=True)
            if time.monotonic() > deadline:
                raise _Failure(f"no whole answer within {self._timeout_s:g} s", billed=True)
            name, _, value = line.strip().partition(b":")
            if name != b"data":  # A comment, the name of an event, or an empty line.
                continue
            if not (ended := value.strip() == b"[DONE]"):
                yield self._decoded(value)
        if not ended:
            raise _Failure("the answer broke off", billed=True)

    def get(self, path: str) -> Mapping[str, Any]:
        """The answer to a GET, asked once.

        Raises:
          ServerError: there is none; fatal.
        """
        try:
            return self._exchange(path, None, 1 << 24)
        except _Failure as failure:
            raise ServerError(f"{self.url}{path}: {failure.reason}", fatal=True) from None

    def _exchange(self, path, encoded, longest):
        """The decoded answer, whole; raises `_Failure` or `ServerError`."""
        request = urllib.request.Request(self.url + path, encoded, self._headers)
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._open(request, timeout=self._timeout_s) as response:
                text = self._read(response, longest, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise self._http_failure(path, error) from None
        except urllib.error.URLError as error:
            # The request did not get there.
            reason = self._line(str(error.reason))
            raise _Failure(f"{reason}: check that the server runs", billed=False) from None
        except TimeoutError:
            raise _Failure(f"no answer within {self._timeout_s:g} s", billed=True) from None
        except (OSError, http.client.HTTPException) as error:
            reason = self._line(str(error) or type(error).__name__)
            raise _Failure(f"the answer broke off: {reason}", billed=True) from None
        return self._decoded(text)

    def _decoded(self, text: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            raise _Failure(f"no JSON: {self._line(text)!r}", billed=True) from None
        if not isinstance(reply, dict):
            raise _Failure(f"no JSON object: {self._line(text)!r}", billed=True)
        return reply

    def _read(self, response, longest, deadline):
        announced, parts, size = response.length, [], 0
        while part := response.read1(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > longest:
                raise _Failure(f"an answer of more than {longest} bytes", billed=True)
            if time.monotonic() > deadline:
                raise TimeoutError
        # Parts read singly end without an error where the connection does.
        if announced is not None and size < announced:
            raise _Failure(f"the answer broke off after {size} of {announced} bytes", billed=True)
        return b"".join(parts)

    def _http_failure(self, path, error):
        """The exception that an HTTP status stands for."""
        try:
            detail = _message(error.read(1 << 16))
        except (OSError, http.client.HTTPException):
            detail = ""
        status = f"HTTP {error.code}: {self._line(detail or error.reason)}"
        if error.code in _TRANSIENT or error.code >= 500:
            wait_s = _retry_after(error.headers.get("Retry-After"))
            if error.code == 429:
                self._limiter.pause(min(wait_s, self._timeout_s))
            # Gateways give up on servers that go on working.
            return _Failure(status, billed=error.code in (502, 504), wait_s=wait_s)
        remedy = {
            400: "the request does not suit the model",
            401: "the key is refused: check the variable that api_key_env names",
            402: "the account has no credit",
            403: "the key may not do this",
            404: "no such model or path: check model and url",
            413: "the request is too long",
        }.get(error.code, "the server refuses the request")
        return ServerError(
            f"{self.url}{path}: {remedy} ({status})", fatal=error.code in _FATAL
        )

    def _line(self, text: str | bytes) -> str:
        """Foreign text for a message: one short line without the key."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        text = text.replace(self._key, "***") if self._key else text
        text = " ".join(text.split())
        return text if len(text) <= 300 else text[:300] + "..."


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"environment variable {variable} is not set: put the API key there")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
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


def _usage(reply: Mapping[str, Any]) -> tuple[int, int] | None:
    """(prompt, completion) tokens that an answer reports, or None."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    whole = all(type(count) is int and count >= 0 for count in counts)
    return (counts[0], counts[1]) if whole else None
