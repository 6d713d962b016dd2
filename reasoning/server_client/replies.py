"""What a server's answer says: texts, tokens and log-probs, each checked before it is used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reasoning.response import THINK_CLOSE, THINK_OPEN

# A token is at least one byte of UTF-8, so bytes bound tokens; most are about four.
BYTES_PER_TOKEN = 4


def plain_text(value: Any) -> str:
    """A text of the server's, which may be cut within a character.

    Raises:
      ValueError: it is no text.
    """
    if not isinstance(value, str):
        raise ValueError("a choice has no text")
    # Half of a surrogate pair stands for no character: no file and no tokenizer takes it.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def chat_text(choice: Mapping[str, Any]) -> str:
    """The text of an answer, the chain before it in tags."""
    message = choice["message"]
    text = plain_text(message["content"] or "")
    # vLLM and DeepSeek call it the former, newer vLLM the latter.
    chain = plain_text(message.get("reasoning_content") or message.get("reasoning") or "")
    if not chain:
        return text
    # One that was cut off has no end.
    ended = text or choice["finish_reason"] != "length"
    return f"{THINK_OPEN}{chain}{THINK_CLOSE if ended else ''}{text}"


def streamed_text(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Pieces of a chat's reply, from the parts of its answer; a chain that comes apart in tags.

    Raises:
      ValueError, TypeError, AttributeError: a part of another form.
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
    """Token ids and logprobs of a choice, each None where it is not reported.

    Raises:
      ValueError: they are no numbers of at most `most` tokens.
    """
    ids = choice.get("token_ids")
    if ids is not None:
        if not (isinstance(ids, list) and all(type(each) is int for each in ids)):
            raise ValueError("token_ids are no integers")
        if not all(0 <= each < 2**31 for each in ids):
            raise ValueError("a token id is out of range")
    reported = choice.get("logprobs") or {}
    if "content" in reported:  # of a chat
        values = reported["content"] and [token["logprob"] for token in reported["content"]]
    else:
        values = reported.get("token_logprobs")
    for each in (ids, values):
        if each is not None and len(each) > most:
            raise ValueError(f"{len(each)} tokens, though {most} is the most that was asked for")
    return ids, None if values is None else np.array([_logprob(v) for v in values], np.float32)


def _logprob(value):
    """A log-probability; servers round, so that it may be a little above 0."""
    if type(value) in (int, float) and -1e30 < value <= 1e-3:  # NaN is in no range
        return value
    raise ValueError(f"a log-prob is {value!r:.40}, which is none")


def shares(total: int | None, texts: Sequence[str]) -> list[int]:
    """Splits a number of tokens in proportion to the texts' bytes; the sum is exact.

    None, where the number is not known, makes about a token of every four bytes.
    """
    sizes = [len(text.encode()) + 1 for text in texts]
    if total is None:
        return [-(-size // BYTES_PER_TOKEN) for size in sizes]
    ends = [total * sum(sizes[: i + 1]) // sum(sizes) for i in range(len(sizes))]
    return [end - start for start, end in zip([0, *ends], ends)]
