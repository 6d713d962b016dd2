"""JSONL records to training examples: token ids with a loss weight for each.

A record holds one of

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}, ...]}
    {"prompt": ..., "response": ...}
    {"text": ...}

Chats are rendered by the tokenizer's template; a prompt and its response are taken as they are.
The loss is on what an assistant wrote and on the token that ends it (on all of a plain text).
Prompt and response are tokenized apart, exactly as they meet when the model is sampled.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from models.files import read_jsonl
from models.tokens.tokenizer import Tokenizer

Example = dict[str, np.ndarray]

# What is trained on, and whether an end-of-sequence token follows: (text, trained, ends).
Piece = tuple[str, bool, bool]

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


def load_examples(
    path: str | os.PathLike, tokenizer: Tokenizer, *, add_special_tokens: bool = True
) -> list[Example]:
    """All records of a JSONL file as examples; see `encode_records`."""
    wheres, records = zip(*read_records(path), strict=True)
    return encode_records(records, tokenizer, add_special_tokens=add_special_tokens, wheres=wheres)


def encode_records(
    records: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    add_special_tokens: bool = True,
    wheres: Sequence[str] | None = None,
) -> list[Example]:
    """Tokenizes records of the module's three kinds.

    Args:
      records: dicts; other fields than the module's are ignored.
      add_special_tokens: begin prompts and texts, but not chats, with what the tokenizer puts in
        front (Llama 3: its `bos_token`).
      wheres: names of the records for error messages.

    Returns:
      Dicts of `tokens` (int32) and `loss_weights` (float32, 0 or 1), of one length each.

    Raises:
      ValueError: a record of no kind, with a field that is not text, or a chat whose template
        does not keep earlier turns or does not end a turn.
    """
    wheres = wheres or [f"record {i}" for i in range(len(records))]
    pieces: list[list[Piece]] = []
    for where, record in zip(wheres, records, strict=True):
        try:
            pieces.append(_pieces(record, tokenizer))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    # Encoding in bulk is parallel: one call for what begins a chat, one for what begins another
    # record, one for all the rest.
    encoded_first: list[list[int]] = [[] for _ in pieces]
    for chat in (True, False):
        members = [i for i, record in enumerate(records) if ("messages" in record) == chat]
        texts = [pieces[i][0][0] for i in members]
        special = add_special_tokens and not chat
        ids_of = tokenizer.encode_batch(texts, add_special_tokens=special)
        for i, ids in zip(members, ids_of, strict=True):
            encoded_first[i] = ids
    encoded_rest = iter(tokenizer.encode_batch([p[0] for parts in pieces for p in parts[1:]]))

    examples, stop_ids = [], frozenset(tokenizer.stop_ids)
    for where, parts, ids in zip(wheres, pieces, encoded_first, strict=True):
        tokens: list[int] = []
        weights: list[float] = []
        for i, (_, trained, ends) in enumerate(parts):
            ids = ids if i == 0 else next(encoded_rest)
            if ends:
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


def _pieces(record: Mapping[str, Any], tokenizer: Tokenizer) -> list[Piece]:
    fields = {name for name in FIELDS if name in record}
    if fields == {"messages"}:
        return _chat_pieces(record["messages"], tokenizer)
    for name in fields:
        if not isinstance(record[name], str):
            raise ValueError(f"{name!r} is a {type(record[name]).__name__}; it must be text")
    if fields == {"text"}:
        return [(record["text"], True, True)]
    if fields == {"prompt", "response"}:
        return [(record["prompt"], False, False), (record["response"], True, True)]
    raise ValueError(
        f"has the fields {', '.join(sorted(record)) or 'none'}; it needs 'messages', or 'prompt'"
        " and 'response', or 'text'"
    )


def _chat_pieces(messages: Any, tokenizer: Tokenizer) -> list[Piece]:
    """Texts that, one after another, are the rendered chat; an assistant's turns are trained."""
    if not isinstance(messages, list) or not all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages
    ):
        raise ValueError("'messages' must be a list of objects with 'role' and 'content'")
    pieces, done = [], ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.apply_chat_template(messages[:i], add_generation_prompt=True)
        full = tokenizer.apply_chat_template(messages[: i + 1])
        if not prompt.startswith(done) or not full.startswith(prompt):
            raise ValueError(
                "the chat template rewrites earlier turns (some drop their thinking), so this is"
                " not one sequence; give each assistant turn a record with 'prompt' and 'response'"
            )
        pieces += [(prompt[len(done) :], False, False), (full[len(prompt) :], True, False)]
        done = full
    if not pieces:
        raise ValueError("'messages' has no assistant turn to train on")
    return pieces
