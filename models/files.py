"""Writes files atomically, and reads JSON with errors that name the file and the line."""

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, overload

from models import processes
from models.host.storage import as_path, is_remote

# Byte order marks, which Windows programs put at the beginning of text files.
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# A longer line is not a record but a sign of another file format, and would fill the memory.
MAX_LINE_MIB = 32


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike, mode: str = "w", errors: str | None = None
) -> Iterator[IO[Any]]:
    """Opens a file for writing that appears under its name only when the block ends without error.

    Until then, and after a kill at any time, `path` keeps its old content. The new content is on
    the disk before the name changes, so even a crash of the machine leaves no empty file. In a
    remote store, which has no rename, the content is kept in memory and written as one object.

    Args:
      path: the file to write; missing parent folders are created. The content of a local file goes
        to `path` + ".part" first.
      mode: "w" for UTF-8 text, "wb" for bytes.
      errors: how to handle text that UTF-8 cannot encode; see `open`.
    """
    path = as_path(path)
    if is_remote(path):
        content = io.BytesIO()
        text = io.TextIOWrapper(content, "utf-8", errors, newline="\n", write_through=True)
        yield content if "b" in mode else text
        path.write_bytes(content.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    try:
        with open(scratch, mode, encoding=None if "b" in mode else "utf-8", errors=errors) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes a text file so that readers find the old content or the whole new one.

    Of the processes of one job, only the main one writes.
    """
    if not processes.is_main():
        return
    with atomic_file(path) as file:
        file.write(text)


@overload
def read_json(path: str | os.PathLike, remedy: str) -> dict[str, Any]: ...
@overload
def read_json(path: str | os.PathLike, remedy: str, kinds: tuple[type, ...]) -> Any: ...
def read_json(path: str | os.PathLike, remedy: str, kinds: tuple[type, ...] = (dict,)) -> Any:
    """Reads a JSON object (or a value of other `kinds`) from a file that this program wrote.

    Args:
      remedy: tells the user what to do if the file is damaged; the error ends with it.
      kinds: types of JSON values that the file may hold.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file holds no such value, or an empty one; one line names the file.
    """
    try:
        value = json.loads(as_path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({_short(error)}): {remedy}") from None
    if not isinstance(value, kinds) or not value:
        raise ValueError(f"{path} is damaged (it holds {value!r:.40}): {remedy}")
    return value


def read_jsonl(path: str | os.PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads a JSON Lines file: yields (line number from 1, record) for each line that is not blank.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: a line is not a JSON object, not UTF-8 or too long; the error names file and line.
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of a JSON Lines file")
    limit = MAX_LINE_MIB * 2**20
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(limit + 1), b""), start=1):
            if len(line) > limit:
                raise ValueError(
                    f"{path}:{number}: the line is longer than {MAX_LINE_MIB} MiB; a JSON"
                    " Lines file has one record per line"
                )
            if number == 1:
                if line.startswith(_UTF16_MARKS):
                    raise ValueError(f"{path}: the file is UTF-16; save it as UTF-8")
                line = line.removeprefix(_UTF8_MARK)
            if not line.strip():
                continue
            try:
                record = _parse(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}; mend or remove the line") from None
            yield number, record


def write_jsonl(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes records to a JSON Lines file, which appears or is replaced when it is complete.

    Of the processes of one job, only the main one writes.
    """
    if not processes.is_main():
        return
    with atomic_file(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def salvage_jsonl(path: str | os.PathLike) -> tuple[list[dict[str, Any]], list[int]]:
    """Reads the intact lines of a log that a kill, a full disk or a crash may have damaged.

    Returns:
      The records, and the numbers (from 1) of the damaged lines. A last line without a line break
      counts as damaged even if it parses, because the rest of a number may be missing.
    """
    records, damaged = [], []
    with as_path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError
                records.append(_parse(line))
            except ValueError:
                damaged.append(number)
    return records, damaged


def _parse(line: bytes) -> dict[str, Any]:
    """Parses the JSON object of a line; a `ValueError` says in a few words what is wrong."""
    try:
        record = json.loads(line.decode("utf-8"))
        if b"\\u" in line:  # Half of an escaped surrogate pair is not text.
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 ({_short(error)}); save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("no JSON text (it holds one half of a surrogate pair)") from None
    except RecursionError:
        raise ValueError("no JSON record: it is nested too deeply") from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's message names no remedy.
            error = ValueError("a number has thousands of digits; write it as text")
        raise ValueError(f"no JSON: {_short(error)}") from None
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is needed, not {type(record).__name__}")
    return record


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
