"""Reads and writes JSON Lines, and reads text fields with errors that name file and line."""

import math
import os
from typing import Any

from models.files import read_jsonl, write_jsonl

__all__ = ["read_jsonl", "text_field", "write_jsonl"]


def text_field(
    record: dict[str, Any], names: tuple[str, ...], path: str | os.PathLike, number: int
) -> str:
    """Returns the text of the first of the named fields that a record has.

    A number is converted to text.

    Args:
      record: the record.
      names: names of the field, in order of preference.
      path: the record's file, for error messages.
      number: the record's line, for error messages.

    Raises:
      ValueError: the field is missing or blank, or is neither text nor a number.
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
        raise ValueError(
            f"{path}:{number}: field {name!r} is {value}; give a finite number or text"
        )
    text = str(value)
    if not text.strip():
        raise ValueError(f"{path}:{number}: field {name!r} is empty; give a text or a number")
    return text
