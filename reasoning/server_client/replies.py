"""Reads a server's answer: texts, tokens and log-probs, each checked before it is used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reasoning.response import THINK_CLOSE, THINK_OPEN

# A token is at least one byte of UTF-8, so a text has at most as many tokens as bytes. Most tokens
# are about four bytes long.
BYTES_PER_TOKEN = 4


def plain_text(value: Any) -> str:
    """Returns a text from the server, which may be cut within a character.

    Raises:
      ValueError: the value is not a text.
    """
    if not isinstance(value, str):
        raise ValueError("a choice has no text")
    # Half of a surrogate pair is not a character: no file and no tokenizer accepts it.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def chat_text(choice: Mapping[str, Any]) -> str:
    """Returns the text of a chat answer, with the chain of thought before it in tags."""
    message = choice["message"]
    text = plain_text(message["content"] or "")
    # vLLM and DeepSeek name the chain reasoning_content, newer vLLM names it reasoning.
    chain = plain_text(message.get("reasoning_content") or message.get("reasoning") or "")
    if not chain:
        return text
    # A chain that was cut off gets no closing tag.
    ended = text or choice["finish_reason"] != "length"
    return f"{THINK_OPEN}{chain}{THINK_CLOSE if ended else ''}{text}"


def streamed_text(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields pieces of a chat reply from the parts of its answer. A separate chain gets think tags.

    Raises:
      ValueError, TypeError, AttributeError: a part has another form.
    """
    thinking = False
    for part in parts:
        choice = next(iter(part.get("choices") or ()), {})
        # A server that does not stream sends the whole message.
        piece = choice.get("delta") or choice.get("message") or {}
        chain = plain_text(piece.get("reasoning_content") or piece.get("reasoning") or "")
        text = plain_text(piece.get("content") or "")
        made = THINK_OPEN * bool(chain and not thinking) + chain
        thinking = thinking or bool(chain)
        if thinking and text:
            made, thinking = made + THINK_CLOSE, False
        if made + text:
            yield made + text


def tokens_of(choice: Mapping[str, Any], most: int) -> tuple[list[int] | None, np.ndarray | None]:
    """Returns the token ids and log-probs of a choice, each None if the server does not report it.

    Raises:
      ValueError: they are not numbers, or there are more than `most`.
    """
    ids = choice.get("token_ids")
    if ids is not None:
        if not (isinstance(ids, list) and all(type(each) is int for each in ids)):
            raise ValueError("token_ids are not all integers")
        if not all(0 <= each < 2**31 for each in ids):
            raise ValueError("a token id is out of range")
    reported = choice.get("logprobs") or {}
    if "content" in reported:  # the form of a chat
        values = reported["content"] and [token["logprob"] for token in reported["content"]]
    else:
        values = reported.get("token_logprobs")
    for column in (ids, values):
        if column is not None and len(column) > most:
            raise ValueError(f"it has {len(column)} tokens, but the request allowed {most}")
    return ids, None if values is None else np.array([_logprob(v) for v in values], np.float32)


def _logprob(value):
    """Returns a log-prob. Servers round, so it may lie a little above 0."""
    if type(value) in (int, float) and -1e30 < value <= 1e-3:  # NaN is in no range
        return value
    raise ValueError(f"a log-prob is {value!r:.40}, which is no log-prob")


def shares(total: int | None, texts: Sequence[str]) -> list[int]:
    """Splits a number of tokens in proportion to the bytes of the texts; the sum is exact.

    If the number is None (unknown), every four bytes count as about one token.
    """
    sizes = [len(text.encode()) + 1 for text in texts]
    if total is None:
        return [-(-size // BYTES_PER_TOKEN) for size in sizes]
    ends = [total * sum(sizes[: i + 1]) // sum(sizes) for i in range(len(sizes))]
    return [end - start for start, end in zip([0, *ends], ends)]
