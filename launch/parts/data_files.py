"""Fingerprints of data files, so that a changed file under the same path is noticed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from reasoning.tasks import get_task

# Hexadecimal digits of a hash that are kept.
DIGITS = 16


def fingerprints(tasks: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of the content of each file, by path, shortened.

    Args:
      tasks: specs of tasks; the files that they read problems from are taken.
      files: other data files.

    Raises:
      FileNotFoundError: there is no such file.
    """
    paths = dict.fromkeys(files)
    for spec in tasks:
        if spec:
            paths |= dict.fromkeys(get_task(spec).files())
    return {path: _hash(path) for path in paths}


def _hash(path: str) -> str:
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"data file {path} does not exist; give the path of a file")
    with Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
