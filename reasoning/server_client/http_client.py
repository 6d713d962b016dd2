"""Makes one HTTP exchange under one deadline and one limit on size, whatever the server does.

The deadline covers everything from the address look-up to the last byte of the trailers. If a
server sends a status line, a header, a chunk extension or the body of an error drop by drop, or
says "100 Continue" for ever, the exchange ends when the time is over. Redirects are not followed,
because they would carry a key to another address.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import queue
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import Any

_LONGEST_ERROR = 1 << 16  # the most bytes that are read of an error's body
LONGEST_KEY = 4096
_GRACE_S = 5.0  # seconds past its deadline after which an exchange counts as lost
_LOOK_S = 0.2  # how often an exchange looks whether it must stop, in seconds
_REDACTED = "***"


class ExchangeError(OSError):
    """There was no whole answer.

    Attributes:
      sent: whether the server may have received the request and worked for it.
    """

    def __init__(self, reason: str, sent: bool):
        super().__init__(reason)
        self.sent = sent


class DeadlineError(ExchangeError):
    """There was no whole answer in time."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """An answer, whole or cut.

    Attributes:
      status: the HTTP status code.
      reason: the words of the status line.
      headers: names in lower case; values of headers with one name are joined by commas.
      body: the bytes as they were sent, at most `longest`.
      is_cut: whether the server sent more bytes than that.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


class HttpClient:
    """Sends requests with the same headers. Thread-safe. Proxies come from the environment.

    Args:
      headers: the headers of every request.

    Raises:
      ValueError: the environment names a proxy that cannot be used.
    """

    def __init__(self, headers: Mapping[str, str]):
        import httpx  # imported here, because workers that send nothing import this module too

        self._errors = httpx.ConnectError, httpx.HTTPError, httpx.InvalidURL
        try:
            self._client = httpx.AsyncClient(
                # Answers must come uncompressed: a small one could unpack to gigabytes.
                headers={"Accept-Encoding": "identity", **headers},
                timeout=None,  # `exchange` sets one deadline instead
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                verify=_certificates(),
            )
        except ImportError as error:
            raise ValueError(
                f"the proxy that the environment names cannot be used: {error}"
            ) from None

    def exchange(
        self,
        method: str,
        url: str,
        body: bytes | None,
        *,
        timeout_s: float,
        longest: int,
        stop: threading.Event | None = None,
    ) -> Reply:
        """Sends one request and returns its answer, whatever the status.

        Args:
          method: the HTTP method, such as "POST".
          url: the full address.
          body: the bytes to send; None for none.
          timeout_s: the seconds that everything may take together.
          longest: the most bytes of the body to read; at most 64 KiB of an error's body are read.
          stop: ends the exchange when it is set.

        Raises:
          DeadlineError: it took longer.
          ExchangeError: the server is not there, or its answer is not whole, or `stop` was set.
        """
        work = self._exchange(method, url, body, timeout_s, longest)
        future = asyncio.run_coroutine_threadsafe(work, _loop())
        deadline = time.monotonic() + timeout_s + _GRACE_S
        try:
            while stop is not None and not future.done() and time.monotonic() < deadline:
                if stop.is_set():
                    raise ExchangeError("it was stopped", sent=True)
                concurrent.futures.wait([future], _LOOK_S)
            return future.result(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, concurrent.futures.TimeoutError):
            raise DeadlineError(f"no answer within {timeout_s:g} s", sent=True) from None
        finally:
            future.cancel()

    def stream(
        self, method: str, url: str, body: bytes, *, timeout_s: float, longest: int
    ) -> Iterator[Reply | bytes]:
        """Sends one request and yields the answer in pieces as they arrive.

        The first piece is the reply without its body; its bytes follow. If the status is an error,
        the reply is whole and no piece follows.

        Args:
          method, url, body, timeout_s: as in `exchange`.
          longest: the most bytes that the answer may have.

        Raises:
          DeadlineError, ExchangeError: as in `exchange`, at any piece; also if the answer is longer
            than `longest`.
        """
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        work = self._pump(waiting.put, method, url, body, timeout_s, longest)
        future = asyncio.run_coroutine_threadsafe(work, _loop())
        try:
            while (piece := waiting.get(timeout=timeout_s + _GRACE_S)) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        except (TimeoutError, queue.Empty):
            raise DeadlineError(f"no answer within {timeout_s:g} s", sent=True) from None
        finally:
            future.cancel()

    async def _pump(self, put, method, url, body, timeout_s, longest):
        """Passes all pieces to `put`, then None, or the error that ended them."""
        try:
            pieces = self._pieces(method, url, body, timeout_s)
            async with contextlib.aclosing(pieces):
                response, size = await anext(pieces), 0
                if not response.is_success:
                    put(await _collect(response, pieces, longest))
                else:
                    put(_reply(response, b"", False))
                    async for part in pieces:
                        size += len(part)
                        if size > longest:
                            reason = f"the answer has more than {longest} bytes"
                            raise ExchangeError(reason, sent=True)
                        put(part)
            put(None)
        except Exception as error:
            put(error)

    async def _exchange(self, method, url, body, timeout_s, longest):
        pieces = self._pieces(method, url, body, timeout_s)
        async with contextlib.aclosing(pieces):
            return await _collect(await anext(pieces), pieces, longest)

    async def _pieces(self, method, url, body, timeout_s) -> AsyncGenerator[Any, None]:
        """Yields the response with its body unread, then the bytes of the body as they arrive."""
        connect_error, any_error, url_error = self._errors
        try:
            async with asyncio.timeout(timeout_s):
                request = self._client.build_request(method, url, content=body)
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    yield response
                    async for part in response.aiter_raw():
                        yield part
                finally:
                    await response.aclose()
        except connect_error as error:
            raise ExchangeError(_cause(error), sent=False) from None
        except (any_error, url_error, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ExchangeError(_cause(error), sent=True) from None


async def _collect(response, pieces, longest: int) -> Reply:
    """Returns the whole answer, or its first `longest` bytes."""
    read, is_cut = bytearray(), False
    if not response.is_success:
        longest = min(longest, _LONGEST_ERROR)
    async for part in pieces:
        read += part
        if is_cut := len(read) > longest:
            break
    if is_cut and not response.is_success:
        longest -= LONGEST_KEY  # a key that the cut splits in two would not be found and redacted
    return _reply(response, bytes(read[:longest]), is_cut)


def _reply(response, body: bytes, is_cut: bool) -> Reply:
    headers = dict(response.headers)
    return Reply(response.status_code, response.reason_phrase, headers, body, is_cut)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Returns the trusted certificates.

    They are cached, because reading them takes as long as a hundred requests.
    """
    import httpx

    return httpx.create_ssl_context()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop of all clients, which runs in a thread of its own.

    If each exchange had a loop of its own, ending that loop would wait for a name look-up that
    hangs.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


def _cause(error: BaseException | None) -> str:
    """Returns what the operating system said, even if an error of the library hides it."""
    text = str(error)
    while error is not None:
        if isinstance(error, (socket.gaierror, ssl.SSLError)):
            return str(error)
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
            continue
        error = error.__cause__ or error.__context__
    return text or "the connection failed"


def check_url(url: str, name: str) -> urllib.parse.SplitResult:
    """Splits a server's address into its parts.

    Args:
      url: the address.
      name: what an error calls the address.

    Raises:
      ValueError: it is not an address, or it holds a password or a query, which messages would
        show.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if "@" in parts.netloc or parts.query:
        raise ValueError(f"{name} holds a password or a query: give the key separately instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} {url!r}: give an address such as http://localhost:8000")
    return parts


class Redactor:
    """Removes secrets from texts that go into messages.

    Args:
      secrets: the keys; it also finds them in the forms that JSON, `repr` and URLs give them.
    """

    def __init__(self, secrets: Iterable[str]):
        forms: set[str] = set()
        for secret in filter(None, secrets):
            in_json = json.dumps(secret)[1:-1]
            forms |= {secret, in_json, in_json.replace("/", r"\/"), repr(secret)[1:-1]}
            forms |= {urllib.parse.quote(secret), urllib.parse.quote(secret, safe="")}
        # The longest form comes first, because one form may contain another.
        self._forms = sorted(forms, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} forms)"

    def line(self, text: Any, most: int = 300) -> str:
        """Returns a text without the secrets as one short line of at most `most` characters."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        for form in self._forms:
            text = text.replace(form, _REDACTED)
        text = " ".join(text.split())
        # This replaces characters that a terminal would obey, or could not show.
        text = "".join(c if c.isprintable() else "\ufffd" for c in text[: most + 1])
        return text if len(text) <= most else text[:most] + "..."
