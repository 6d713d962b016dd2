"""Turns JSONL records into training examples: token ids with a loss weight for each.

A record holds one of

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}, ...]}
    {"prompt": ..., "response": ...}
    {"text": ...}

The tokenizer's template renders chats; it also gets a record's `tools`, `enable_thinking` and
`chat_template_kwargs`. A prompt and its response are used unchanged. The loss is on the assistant's
text and on the token that ends it; of a plain text, on every token. Prompt and response are
tokenized apart, exactly as when the model is sampled.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from models.files import read_jsonl
from models.tokens.tokenizer import Tokenizer
from train.chat_records import Piece, chat_pieces

Example = dict[str, np.ndarray]

FIELDS = ("messages", "prompt", "response", "text")


def read_records(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where, record) for every line that is not blank; `where` is "FILE:LINE".

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line is no record (see `models.files.read_jsonl`), or there is none.
    """
    empty = True
    for number, record in read_jsonl(path):
        empty = False
        yield f"{path}:{number}", record
    if empty:
        raise ValueError(f"data file {path} holds no records")


def load_examples(path: str | os.PathLike, tokenizer: Tokenizer) -> list[Example]:
    """Reads all records of a JSONL file as examples; see `encode_records`."""
    wheres, records = zip(*read_records(path), strict=True)
    return encode_records(records, tokenizer, wheres=wheres)


def encode_records(
    records: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    wheres: Sequence[str] | None = None,
    allow_empty: bool = False,
) -> list[Example]:
    """Tokenizes records of the module's three kinds.

    A sequence begins like a sampled one (see `Tokenizer.encode_prompts`), and ends with one token
    that ends a response.

    Args:
      records: dicts; fields that the module does not name are ignored.
      tokenizer: the model's tokenizer.
      wheres: names of the records for error messages.
      allow_empty: whether a response may be empty, so that only its end is trained.

    Returns:
      Dicts of `tokens` (int32) and `loss_weights` (float32, 0 or 1), both of one length.

    Raises:
      ValueError: a record of no kind, with a field that is not text, an empty response, or a chat
        that the template does not render as one sequence with every part of it.
    """
    wheres = wheres or [f"record {i}" for i in range(len(records))]
    pieces: list[list[Piece]] = []
    for where, record in zip(wheres, records, strict=True):
        try:
            pieces.append(_pieces(record, tokenizer, allow_empty))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    # Encoding in bulk is parallel: one call for the starts of sequences, one for all the rest.
    first = [parts[0][0] for parts in pieces]
    rest = [text for parts in pieces for text, *_ in parts[1:]]
    owners = [where for where, parts in zip(wheres, pieces, strict=True) for _ in parts[1:]]
    encoded_first = _encoded(tokenizer.encode_prompts, first, wheres)
    encoded_rest = iter(_encoded(tokenizer.encode_batch, rest, owners))

    examples, stop_ids = [], frozenset(tokenizer.stop_ids)
    for where, parts, ids in zip(wheres, pieces, encoded_first, strict=True):
        tokens: list[int] = []
        weights: list[float] = []
        for i, (_, trained, ends) in enumerate(parts):
            ids = ids if i == 0 else next(encoded_rest)
            if ends and not (ids and ids[-1] in stop_ids):
                ids = [*ids, tokenizer.eos_id]
            tokens += ids
            count = len(ids) if trained else 0
            if trained and not ends:
                # A template may add, say, a newline after the token that ends the turn; the
                # sampler has stopped by then.
                count = max((j + 1 for j, token in enumerate(ids) if token in stop_ids), default=0)
                if not count:
                    raise ValueError(
                        f"{where}: the chat template ends the assistant's turn with none of the"
                        f" tokens {sorted(stop_ids)} that end a response; add one to the template"
                        " or to eos_token_id in generation_config.json"
                    )
            weights += [1.0] * count + [0.0] * (len(ids) - count)
        examples.append(
            {"tokens": np.array(tokens, np.int32), "loss_weights": np.array(weights, np.float32)}
        )
    return examples


def _encoded(
    encode: Callable[[Sequence[str]], list[list[int]]],
    texts: Sequence[str],
    wheres: Sequence[str],
) -> list[list[int]]:
    """Returns `encode(texts)`; an error names the record of the text."""
    try:
        return encode(texts)
    except ValueError:
        for text, where in zip(texts, wheres, strict=True):
            try:
                encode([text])
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        raise


def _pieces(record: Mapping[str, Any], tokenizer: Tokenizer, allow_empty: bool) -> list[Piece]:
    fields = {name for name in FIELDS if name in record}
    if fields == {"messages"}:
        return chat_pieces(record, tokenizer, allow_empty=allow_empty)
    for name in fields:
        if not isinstance(record[name], str):
            raise ValueError(f"{name!r} is a {type(record[name]).__name__}; it must be text")
    for name in fields - {"prompt"}:
        if not allow_empty and not record[name].strip():
            raise ValueError(f"{name!r} is empty: there is nothing to train on; remove the record")
    if fields == {"text"}:
        return [(record["text"], True, True)]
    if fields == {"prompt", "response"}:
        return [(record["prompt"], False, False), (record["response"], True, True)]
    raise ValueError(
        f"has the fields {', '.join(sorted(record)) or 'none'}; it needs 'messages', or 'prompt'"
        " and 'response', or 'text'"
    )
