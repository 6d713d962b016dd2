"""Fields of JSON Lines records, with errors that name the file and the line."""

import math
import os
from typing import Any

from models.files import read_jsonl, write_jsonl

__all__ = ["read_jsonl", "text_field", "write_jsonl"]


def text_field(
    record: dict[str, Any], names: tuple[str, ...], path: str | os.PathLike, number: int
) -> str:
    """The first of the named fields that the record has. Numbers are turned into text.

    Raises:
        ValueError: If it is missing, blank, or neither text nor a number; names file and line.
    """
    name = next((name for name in names if name in record), None)
    if name is None:
        has = ", ".join(map(repr, record)) or "nothing"
        raise ValueError(f"{path}:{number}: no field {names[0]!r} (the record has {has})")
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(
            f"{path}:{number}: field {name!r} must be text, not {type(value).__name__}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}:{number}: field {name!r} is {value}; give a number, or text")
    text = str(value)
    if not text.strip():
        raise ValueError(f"{path}:{number}: field {name!r} is empty")
    return text
