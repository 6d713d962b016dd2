"""Keeps paid responses in an append-only file, which survives a crash at any time."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class ResponseLog:
    """A JSON Lines file: the settings first, then one record for each answered prompt.

    Each line is written whole and is on the disk before `append` returns. If the machine or the
    process died while it wrote the last line, that torn line is dropped when the file is opened
    again. Only one process at a time may open the file. A context manager.

    Args:
      path: the file, which is made, or opened and continued.
      settings: what the responses depend on, as JSON data; it must not change while the file is in
        use.

    Attributes:
      keys: the keys of all records.
      last: the last record in the file when it was opened, or None.
      dropped_bytes: the length of the torn line that was dropped then.

    Raises:
      ValueError: the file has other settings, is damaged before its end, or is open in another
        process; the message is one line.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]):
        self.path = Path(path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{self.path} is open in another process: wait until that ends"
                ) from None
            self.dropped_bytes = self._drop_torn_line()
            self._check_settings(json.loads(json.dumps({"settings": settings})))
            # Only the keys are kept, because the responses may not fit into memory.
            self.keys: set[str] = set()
            self.last: dict[str, Any] | None = None
            for record in self:
                self.keys.add(record["key"])
                self.last = record
        except BaseException:
            os.close(self._file)
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record; its `key` must be new.

        Raises:
          OSError: the record cannot be written (disk full, ...); the file is unchanged.
        """
        self._write(record)
        self.keys.add(record["key"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the records in the order in which they were added, read from the file."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    if number > 1:
                        record["key"]
                except (ValueError, TypeError, LookupError, RecursionError):
                    raise ValueError(
                        f"{self.path}:{number}: the line is no record of a response: remove the"
                        " line or the file to go on"
                    ) from None
                if number > 1:
                    yield record

    def close(self) -> None:
        """Closes the file, so that another process may open it."""
        os.close(self._file)

    def __enter__(self) -> "ResponseLog":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _drop_torn_line(self):
        """Cuts the file after its last whole line and returns the number of bytes dropped."""
        size = os.fstat(self._file).st_size
        with self.path.open("rb") as file:
            whole = last = 0
            for line in file:
                if line.endswith(b"\n"):
                    last, whole = whole, whole + len(line)
            file.seek(last)
            try:
                # After a crash of the machine, a line may have its length but not its content.
                json.loads(file.read(whole - last) or "0")
            except ValueError:
                whole = last
        if whole < size:
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
        return size - whole

    def _check_settings(self, header):
        with self.path.open("rb") as file:
            first = file.readline()
        if not first:
            self._write(header)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # The name of the new file must be on the disk too.
            finally:
                os.close(folder)
            return
        found = json.loads(first)
        if not isinstance(found, dict) or "settings" not in found:
            raise ValueError(f"{self.path} is no file of responses: give another path for them")
        old, new = found["settings"], header["settings"]
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise ValueError(
                    f"{self.path} holds responses for {name}={old.get(name)!r}, not"
                    f" {new.get(name)!r}: set it back, or give another path for the new ones"
                )

    def _write(self, record):
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, size)
            raise
