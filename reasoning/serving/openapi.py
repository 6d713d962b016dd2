"""The description of the API in OpenAPI 3.1, made from the requests' own schema."""

from typing import Any

from reasoning.serving.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)

_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS = {
    "400": "the request is malformed, or does not fit into the context",
    "401": "the API key is missing or wrong",
    "404": "the model is unknown",
    "408": "the body of the request came too slowly",
    "413": "the body of the request is too large",
    "429": "too many requests wait; Retry-After says when to try again",
    "503": "the server is shutting down",
}


def describe() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    for kind in (ChatRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest):
        schema = kind.model_json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    # Every model is answered with a 404 unless the server has it.
    paths = {
        "/v1/chat/completions": {"post": _post("ChatRequest", "Answer", streams=True)},
        "/v1/completions": {"post": _post("CompletionRequest", "Continue", streams=True)},
        "/tokenize": {"post": _post("TokenizeRequest", "The tokens of a text")},
        "/detokenize": {"post": _post("DetokenizeRequest", "The text of tokens")},
        "/tokenizer_info": {"get": _get("Special tokens and chat template", errors=["401"])},
        "/v1/models": {"get": _get("List the models", errors=["401"])},
        "/health": {"get": _get("Whether the server takes requests", errors=["503"])},
        "/openapi.json": {"get": _get("This description")},
        "/metrics": {"get": _get("Figures for Prometheus", "text/plain", errors=["401"])},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ergo", "version": "1", "description": "Reasoning models, OpenAI's API"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(schema: str, summary: str, *, streams: bool = False) -> dict[str, Any]:
    body = {"$ref": _REFERENCE.format(model=schema)}
    answer: dict[str, Any] = {
        "description": "the answer",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    if streams:
        answer["description"] += "; a stream of server-sent events if `stream` is true"
        answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": answer,
            **_errors(list(_ERRORS)),
        },
    }


def _get(
    summary: str, kind: str = "application/json", errors: list[str] | None = None
) -> dict[str, Any]:
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    answer = {"description": "the answer", "content": {kind: {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer, **_errors(errors or [])}}


def _errors(codes: list[str]) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model="Error")}
    return {
        code: {
            "description": _ERRORS[code],
            "content": {"application/json": {"schema": schema}},
        }
        for code in codes
    }
