"""One HTTP exchange under one deadline and one limit on size, whatever the server does.

The deadline holds from the first look at the address to the last byte of the trailers: a server
that drips a status line, a header, the extension of a chunk or the body of an error, or that says
"100 Continue" for ever, is left when the time is over. Redirects are not followed, since that would
carry a key to another address.
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
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONGEST_ERROR = 1 << 16  # bytes of the body of an error that are read
LONGEST_KEY = 4096
_GRACE_S = 5.0  # past a deadline, before an exchange counts as lost
_REDACTED = "***"


class ExchangeError(OSError):
    """There was no whole answer.

    Attributes:
      sent: whether the server may have got the request and worked for it.
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
      reason: the words of the status line.
      headers: names in lower case; of several with one name, their values joined by commas.
      body: as it was sent; at most `longest` bytes.
      is_cut: whether the server sent more than that.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


class HttpClient:
    """Sends requests with the same headers. Thread-safe. Proxies come from the environment.

    Args:
      headers: of every request.

    Raises:
      ValueError: the environment names a proxy that cannot be used.
    """

    def __init__(self, headers: Mapping[str, str]):
        import httpx  # here, because workers that send nothing import this module as well

        self._errors = httpx.ConnectError, httpx.HTTPError, httpx.InvalidURL
        try:
            self._client = httpx.AsyncClient(
                # Answers are read as sent: a small one that unpacks to gigabytes stays small.
                headers={"Accept-Encoding": "identity", **headers},
                timeout=None,  # one deadline instead
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                verify=_certificates(),
            )
        except ImportError as error:
            raise ValueError(f"the proxy that the environment names cannot be used: {error}")

    def exchange(
        self, method: str, url: str, body: bytes | None, *, timeout_s: float, longest: int
    ) -> Reply:
        """One request and its answer, whatever its status.

        Args:
          timeout_s: seconds for all of it.
          longest: bytes of the body that are read; of an error's at most 64 KiB.

        Raises:
          DeadlineError: it took longer.
          ExchangeError: the server is not there, or the answer is not whole.
        """
        work = self._exchange(method, url, body, timeout_s, longest)
        future = asyncio.run_coroutine_threadsafe(work, _loop())
        try:
            return future.result(timeout_s + _GRACE_S)
        except (TimeoutError, concurrent.futures.TimeoutError):
            raise DeadlineError(f"no answer within {timeout_s:g} s", sent=True) from None
        finally:
            future.cancel()

    def stream(
        self, method: str, url: str, body: bytes, *, timeout_s: float, longest: int
    ) -> Iterator[Reply | bytes]:
        """`exchange` by pieces: yields the reply without its body, then its bytes as they come.

        Of an error the reply is whole, and nothing comes after it.

        Raises:
          DeadlineError, ExchangeError: as `exchange`, at any piece; an answer that is longer than
            `longest`, too.
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
        """Gives all pieces to `put`, then None, or the error that ended them."""
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
                            reason = f"an answer of more than {longest} bytes"
                            raise ExchangeError(reason, sent=True)
                        put(part)
            put(None)
        except Exception as error:
            put(error)

    async def _exchange(self, method, url, body, timeout_s, longest):
        pieces = self._pieces(method, url, body, timeout_s)
        async with contextlib.aclosing(pieces):
            return await _collect(await anext(pieces), pieces, longest)

    async def _pieces(self, method, url, body, timeout_s):
        """Yields the response, whose body is not read yet, and then its bytes as they come."""
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
    """The whole answer, or as much of it as is read."""
    read, is_cut = bytearray(), False
    if not response.is_success:
        longest = min(longest, _LONGEST_ERROR)
    async for part in pieces:
        read += part
        if is_cut := len(read) > longest:
            break
    if is_cut and not response.is_success:
        longest -= LONGEST_KEY  # a key that is cut in two would not be found
    return _reply(response, bytes(read[:longest]), is_cut)


def _reply(response, body: bytes, is_cut: bool) -> Reply:
    headers = dict(response.headers)
    return Reply(response.status_code, response.reason_phrase, headers, body, is_cut)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; to read them takes as long as a hundred requests."""
    import httpx

    return httpx.create_ssl_context()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all clients, in a thread of its own.

    A loop that ends with each exchange would wait for a look-up of a name that hangs.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


def _cause(error: BaseException) -> str:
    """What the operating system said, where an error of the library hides it."""
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
    """The parts of a server's address.

    Raises:
      ValueError: it is none, or holds a password or a query, which would show in messages.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if "@" in parts.netloc or parts.query:
        raise ValueError(f"{name} holds a password or a query: give the key by itself instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} {url!r}: give an address such as http://localhost:8000")
    return parts


class Redactor:
    """Takes secrets out of texts that go into messages.

    Args:
      secrets: keys; also found as JSON, `repr` and URLs write them.
    """

    def __init__(self, secrets: Iterable[str]):
        forms: set[str] = set()
        for secret in filter(None, secrets):
            in_json = json.dumps(secret)[1:-1]
            forms |= {secret, in_json, in_json.replace("/", r"\/"), repr(secret)[1:-1]}
            forms |= {urllib.parse.quote(secret), urllib.parse.quote(secret, safe="")}
        # The longest first: one form may contain another.
        self._forms = sorted(forms, key=len, reverse=True)

    def __repr__(self):
        return f"Redactor({len(self._forms)} forms)"

    def line(self, text: Any, most: int = 300) -> str:
        """A short line without the secrets."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        for form in self._forms:
            text = text.replace(form, _REDACTED)
        text = " ".join(text.split())
        # Characters that a terminal obeys, or cannot write.
        text = "".join(c if c.isprintable() else "\ufffd" for c in text[: most + 1])
        return text if len(text) <= most else text[:most] + "..."
