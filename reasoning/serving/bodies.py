"""The bodies of the API's answers: choices, log-probs, usage and errors, as OpenAI shapes them."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from reasoning.serving.batch.response import Token, Writing
from reasoning.serving.batch.text import Vocabulary


def head(kind: str, model: str) -> dict[str, Any]:
    """Returns the fields that all parts of an answer share."""
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def usage(prompt: int, writings: Sequence[Writing]) -> dict[str, Any]:
    """Returns the tokens that a request used; those of all samples of a vote count."""
    completion = sum(writing.tokens for writing in writings)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {
            "reasoning_tokens": sum(writing.reasoning_tokens for writing in writings)
        },
    }


def chat_logprobs(vocabulary: Vocabulary, tokens: Sequence[Token], top: int) -> dict[str, Any]:
    """Returns log-probs in the form of a chat; only tokens of the answer may be passed."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = vocabulary.raw[token]
        return {
            "token": raw.decode("utf-8", "replace"),
            "logprob": max(logprob, -9999.0),
            "bytes": list(raw),
        }

    return {
        "content": [
            entry(token.token, token.logprob)
            | {"top_logprobs": [entry(*each) for each in token.alternatives[:top]]}
            for token in tokens
        ]
    }


def text_logprobs(
    vocabulary: Vocabulary, tokens: Sequence[Token], top: int, offset: int
) -> dict[str, Any]:
    """Returns log-probs in the form of `/v1/completions`; a NaN becomes null."""
    texts = [vocabulary.raw[token.token].decode("utf-8", "replace") for token in tokens]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [t.logprob if t.logprob == t.logprob else None for t in tokens],
        "top_logprobs": [
            {
                vocabulary.raw[i].decode("utf-8", "replace"): value
                for i, value in reversed(token.alternatives[:top])
            }
            or None
            for token in tokens
        ],
        "text_offset": offsets,
    }


def scored_tokens(prompt: Sequence[int], scored: Sequence[Any]) -> list[Token]:
    """Returns the tokens of a prompt with their log-probs; the first has none."""
    found = [Token(prompt[0], float("nan"), [])]
    place = 1
    for chunk in scored:
        for i, logprob in enumerate(chunk.logprobs.tolist()):
            pairs = zip(
                chunk.alternatives.tokens[i].tolist(), chunk.alternatives.logprobs[i].tolist()
            )
            found.append(Token(prompt[place], logprob, list(pairs)))
            place += 1
    return found


def error(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict:
    """Returns the body of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
