"""An append-only file of responses that were paid for, which survives being killed at any time."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class ResponseLog:
    """JSON Lines: the settings first, then a record for each answered prompt.

    Each line is written whole and is on the disk before `append` returns. A last line that is torn,
    because the machine or the process died while it was written, is dropped when the file is opened
    again. One process at a time has it open. A context manager.

    Args:
      path: the file; made, or opened to go on with.
      settings: JSON-able; what the responses depend on, which must not change in between.

    Attributes:
      keys: of all records.
      last: the last record that was found when the file was opened, or None.
      dropped_bytes: length of the torn line that was found then.

    Raises:
      ValueError: the file has other settings, is damaged elsewhere than at its end, or is open in
        another process; one line.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self.path = Path(path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.path} is being written by another process: wait for it")
            self.dropped_bytes = self._drop_torn_line()
            self._check_settings(json.loads(json.dumps({"settings": settings})))
            # The responses may not fit into memory.
            self.keys, self.last = set(), None
            for self.last in self:
                self.keys.add(self.last["key"])
        except BaseException:
            os.close(self._file)
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record, with a `key` that no other has.

        Raises:
          OSError: it cannot be written (disk full, ...); the file is as it was.
        """
        self._write(record)
        self.keys.add(record["key"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records in the order in which they came, read from the file."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    if number > 1:
                        record["key"]
                except (ValueError, TypeError, LookupError, RecursionError):
                    raise ValueError(
                        f"{self.path}:{number}: no record of a response: remove the line, or the"
                        " file, to go on"
                    ) from None
                if number > 1:
                    yield record

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "ResponseLog":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _drop_torn_line(self):
        """Cuts the file behind its last whole line; returns how many bytes went."""
        size = os.fstat(self._file).st_size
        with self.path.open("rb") as file:
            whole = last = 0
            for line in file:
                if line.endswith(b"\n"):
                    last, whole = whole, whole + len(line)
            file.seek(last)
            try:
                # A crash of the machine may leave the length of a line without its content.
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
                os.fsync(folder)  # The new file's name, too.
            finally:
                os.close(folder)
            return
        found = json.loads(first)
        if not isinstance(found, dict) or "settings" not in found:
            raise ValueError(f"{self.path} is no file of responses: give another place for them")
        old, new = found["settings"], header["settings"]
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise ValueError(
                    f"{self.path} holds responses for {name}={old.get(name)!r}, not"
                    f" {new.get(name)!r}: set it back, or give another place for the new ones"
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
