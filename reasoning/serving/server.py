"""The web server: keys, limits, streams, errors, and the page. It logs no prompts and no keys."""

import asyncio
import dataclasses
import hmac
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from reasoning.serving import bodies, openapi
from reasoning.serving.batch.engine import QueueFull
from reasoning.serving.batch.response import EngineStopped
from reasoning.serving.chat import Chat
from reasoning.serving.completions import Completion
from reasoning.serving.event_stream import EventStream, gone
from reasoning.serving.metrics import Metrics
from reasoning.serving.requests import (
    EXPLICIT,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from reasoning.serving.rollouts import (
    PATHS,
    GenerateRequest,
    Rollout,
    WeightsRequest,
    update_weights,
)
from reasoning.serving.routes import Models
from reasoning.serving.tokens import about, detokenize, tokenize

_PAGE = Path(__file__).parent / "page"
_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
# Paths that have a counter of their own; any other path, which a client chooses, has none.
_COUNTED = {
    "/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/tokenize",
    "/detokenize", "/tokenizer_info", *PATHS,
}  # fmt: skip
_OPEN = {*_FILES, "/health", "/openapi.json"}
_log = logging.getLogger("ergo.server")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
      body: bytes of a request.
      body_seconds: time in which the body must come.
      tokens: most tokens of a response.
      seconds: time of a whole request.
      send_seconds: how long a client may leave a stream unread before it is dropped.
    """

    body: int = 2**20
    body_seconds: float = 20.0
    tokens: int = 4096
    seconds: float = 600.0
    send_seconds: float = 30.0


class Refused(Exception):
    """A request that gets an error, with its status and headers."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: dict[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers


class Server:
    """The application of starlette, and what it needs.

    Attributes:
      app: the ASGI application.
      draining: whether no new requests are taken.
    """

    def __init__(
        self, models: Models, *, api_key: str = "", display: str = EXPLICIT,
        limits: Limits = Limits(), load_weights: Callable[[str], Any] | None = None,
    ):  # fmt: skip
        """Makes the application.

        Args:
          models: the models to offer.
          api_key: the key that clients must send; empty for none.
          display: the most that any client sees of a chain: explicit, summary or hidden.
          limits: the limits of a request.
          load_weights: reads the parameters of a folder; with it, the server has the routes of
            `reasoning.serving.rollouts`.
        """
        self._models, self._key, self._display = models, api_key.encode(), display
        self._limits, self.draining = limits, False
        self.metrics = Metrics(models.checkpoints)
        self._began = int(time.time())
        posts = {
            "/v1/chat/completions": self._post(ChatRequest, self._chat),
            "/v1/completions": self._post(CompletionRequest, self._text),
            "/tokenize": self._post(TokenizeRequest, self._tokens(tokenize)),
            "/detokenize": self._post(DetokenizeRequest, self._tokens(detokenize)),
        }
        if load_weights is not None:
            reasoner = models.reasoner

            async def generate(request: Request, parsed: GenerateRequest) -> Response:
                rollout = Rollout(reasoner, parsed)
                rollout.start()
                return await self._answer(request, rollout, False)

            async def update(request: Request, parsed: WeightsRequest) -> Response:
                return JSONResponse(
                    await asyncio.to_thread(update_weights, reasoner, load_weights, parsed)
                )

            posts |= {
                "/generate": self._post(GenerateRequest, generate),
                "/update_weights_from_disk": self._post(WeightsRequest, update),
            }
        routes = [
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
            Route("/tokenizer_info", self._tokenizer),
            Route("/v1/models", self._list),
            Route("/v1/models/{name:path}", self._model),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._describe),
            *(Route(path, self._file) for path in _FILES),
        ]
        starlette = Starlette(
            routes=routes,
            exception_handlers={HTTPException: _http_error, Exception: _failure},
        )
        self.app = self._guard(starlette)

    def _guard(self, app: Any) -> Callable:
        """Wraps the application: checks the key, counts, and answers errors in the API's shape."""

        async def guarded(scope, receive, send):
            if scope["type"] != "http":
                return await app(scope, receive, send)
            path, status, began = scope["path"], 0, time.monotonic()

            async def counting(message):
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                if path not in _OPEN and not self._knows(scope["headers"]):
                    refusal = Refused(
                        401, "the API key is missing or wrong", code="invalid_api_key"
                    )
                    return await _refusal(refusal)(scope, receive, counting)
                await app(scope, receive, counting)
            finally:
                known = "/v1/models" if path.startswith("/v1/models/") else path
                counted = known if known in _COUNTED and status != 404 else "other"
                self.metrics.requests.labels(counted, status).inc()
                _log.info("%s %d %.3f s", known, status, time.monotonic() - began)

        return guarded

    def _knows(self, headers: Any) -> bool:
        if not self._key:
            return True
        given = dict(headers).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        # The comparison takes the same time wherever the keys differ.
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"

    def _post(self, kind: type, answer: Callable) -> Callable:
        async def endpoint(request: Request) -> Response:
            try:
                if self.draining:
                    raise Refused(503, "the server is shutting down", headers={"Retry-After": "5"})
                parsed = _parse(kind, await self._body(request))
                return await answer(request, parsed)
            except Refused as refusal:
                return _refusal(refusal)
            except QueueFull as full:
                after = {"Retry-After": str(max(1, round(full.seconds)))}
                return _refusal(Refused(429, str(full), code="queue_full", headers=after))
            except KeyError:
                return _refusal(_unknown(self._models))
            except ValueError as error:
                return _refusal(Refused(400, str(error)))
            except EngineStopped:
                return _refusal(Refused(503, "the server stopped before the answer was complete"))

        return endpoint

    async def _body(self, request: Request) -> bytes:
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if size > self._limits.body:
                        raise Refused(413, f"the body exceeds {self._limits.body} bytes")
        except TimeoutError:
            raise Refused(408, "the body of the request came too slowly") from None
        except ClientDisconnect:
            raise Refused(400, "the client left") from None
        return b"".join(parts)

    async def _chat(self, request: Request, parsed: ChatRequest) -> Response:
        # Templates, tokenizers and routers take time, in which the streams of others go on.
        chat = await asyncio.to_thread(
            Chat, self._models, parsed, self._display, self._limits.tokens
        )
        chat.start()
        self.metrics.routes.labels(chat.choice.decision.route.kind).inc()
        return await self._answer(request, chat, bool(parsed.stream))

    async def _text(self, request: Request, parsed: CompletionRequest) -> Response:
        made = await asyncio.to_thread(Completion, self._models, parsed, self._limits.tokens)
        made.start()
        return await self._answer(request, made, bool(parsed.stream))

    async def _answer(
        self, request: Request, work: Chat | Completion | Rollout, stream: bool
    ) -> Response:
        if stream and not isinstance(work, Rollout):
            return EventStream(
                work, seconds=self._limits.seconds, send_seconds=self._limits.send_seconds,
                first_token=self.metrics.first_token.observe,
                done=lambda seconds: self.count(work, seconds),
            )  # fmt: skip
        answer = asyncio.create_task(work.whole())
        left = asyncio.create_task(gone(request))
        began = time.monotonic()
        try:
            await asyncio.wait(
                [answer, left], timeout=self._limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
            if not answer.done():
                work.cancel()
                answer.cancel()
                raise Refused(408, "the request took too long, or its client left")
            body = answer.result()
        finally:
            left.cancel()
        self.count(work, time.monotonic() - began)
        return JSONResponse(body)

    def count(self, work: Chat | Completion | Rollout, seconds: float) -> None:
        """Counts a complete request."""
        used = work.usage
        details = used["completion_tokens_details"]
        self.metrics.tokens.labels("prompt").inc(used["prompt_tokens"])
        self.metrics.tokens.labels("completion").inc(used["completion_tokens"])
        self.metrics.tokens.labels("reasoning").inc(details["reasoning_tokens"])
        self.metrics.duration.observe(seconds)

    def _tokens(self, change: Callable) -> Callable:
        async def answer(request: Request, parsed: Any) -> Response:
            return JSONResponse(await asyncio.to_thread(change, self._models, parsed))

        return answer

    async def _tokenizer(self, request: Request) -> Response:
        return JSONResponse(about(self._models))

    async def _list(self, request: Request) -> Response:
        models = [self._about(name) for name in self._models.names]
        return JSONResponse({"object": "list", "data": models})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._models.names:
            return _refusal(_unknown(self._models))
        return JSONResponse(self._about(name))

    def _about(self, name: str) -> dict[str, Any]:
        length = self._models.checkpoint(name).engine.columns
        return {
            "id": name, "object": "model", "created": self._began, "owned_by": "ergo",
            "max_model_len": length,
        }  # fmt: skip

    async def _health(self, request: Request) -> Response:
        healthy = all(each.engine.healthy for each in self._models.checkpoints)
        if not healthy or self.draining:
            state = "shutting down" if self.draining else "the engine has stopped"
            return _refusal(Refused(503, state))
        return JSONResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(openapi.describe())

    async def _file(self, request: Request) -> Response:
        headers = {
            "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none';"
            " frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return FileResponse(_PAGE / _FILES[request.url.path], headers=headers)


def _parse(kind: type, body: bytes) -> Any:
    """Returns a checked request.

    Raises:
      Refused: the body is no JSON, or does not hold what the schema says.
    """
    try:
        found = json.loads(body.decode(), parse_constant=_no_constant)
        # Half a surrogate pair is no character: no tokenizer takes it.
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError:
        raise Refused(400, "the body is not valid UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not valid JSON: {error}") from None
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Refused(400, f"{place or 'the body'}: {first['msg']}", param=place or None) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _unknown(models: Models) -> Refused:
    names = ", ".join(models.names)
    return Refused(
        404, f"the model is unknown; choose one of {names}", param="model", code="model_not_found"
    )


def _refusal(refusal: Refused) -> Response:
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    if refusal.status == 401:
        kind = "authentication_error"
    if refusal.status == 429:
        kind = "rate_limit_error"
    body = bodies.error(str(refusal), kind, refusal.param, refusal.code)
    return JSONResponse(body, refusal.status, refusal.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return _refusal(Refused(error.status_code, str(error.detail), headers=headers))


async def _failure(request: Request, error: Exception) -> Response:
    return JSONResponse(bodies.error("the server failed", "server_error"), 500)
