"""Records from and to JSON Lines files, with errors that name the file and the line."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def read_jsonl(path: str | os.PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, record) for each line that is not blank.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is no JSON object, or the file is not UTF-8; names file and line.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file; give the path of a JSON Lines file")
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: no JSON: {error}") from None
            if not isinstance(record, dict):
                raise ValueError(
                    f"{path}:{number}: a JSON object is needed, not {type(record).__name__}"
                )
            yield number, record


def write_jsonl(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes one record a line; the file appears, or is replaced, when it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    with open(scratch, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    os.replace(scratch, path)


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
    text = str(value)
    if not text.strip():
        raise ValueError(f"{path}:{number}: field {name!r} is empty")
    return text
