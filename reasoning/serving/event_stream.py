"""Sends an answer in parts as server-sent events."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from reasoning.serving import bodies
from reasoning.serving.batch.engine import QueueFull
from reasoning.serving.batch.response import EngineStopped
from reasoning.serving.chat import Chat
from reasoning.serving.completions import Completion


class EventStream(Response):
    """A stream of server-sent events; a client that leaves or does not read frees its slots."""

    def __init__(
        self,
        work: Chat | Completion,
        *,
        seconds: float,
        send_seconds: float,
        first_token: Callable[[float], None],
        done: Callable[[float], None],
    ):
        """Makes the response.

        Args:
          work: the request, started.
          seconds: the time of the whole request.
          send_seconds: how long a client may leave the stream unread.
          first_token, done: are called at most once, with the seconds until then.
        """
        self._work, self._seconds, self._send_seconds = work, seconds, send_seconds
        self._first_token, self._done = first_token, done
        self.background = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends the stream; see ASGI."""
        began = time.monotonic()
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
        ]  # fmt: skip

        async def put(text: str) -> None:
            message = {"type": "http.response.body", "body": text.encode(), "more_body": True}
            async with asyncio.timeout(self._send_seconds):
                await send(message)

        async def produce() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            first = True
            try:
                async with asyncio.timeout(self._seconds):
                    async for part in self._work.stream():
                        if first and any(w.tokens for w in self._work.writings):
                            first = False
                            self._first_token(time.monotonic() - began)
                        text = json.dumps(part, ensure_ascii=False, separators=(",", ":"))
                        await put(f"data: {text}\n\n")
                self._done(time.monotonic() - began)
            except (EngineStopped, QueueFull, TimeoutError) as error:
                said = str(error) or "the request took too long, or its client did not read"
                failure: dict[str, Any] = bodies.error(said, "server_error")
                await put(f"data: {json.dumps(failure)}\n\n")
            await put("data: [DONE]\n\n")
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        tasks = [asyncio.create_task(produce()), asyncio.create_task(leave())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done and (error := tasks[0].exception()):
                if not isinstance(error, (OSError, TimeoutError)):
                    raise error
        finally:
            self._work.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
