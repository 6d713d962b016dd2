"""Takes fingerprints of data files, so that a run notices a file that changed under its path."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from reasoning.tasks import get_task

# Hexadecimal digits of a hash to keep.
DIGITS = 16


def fingerprints(tasks: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Returns the shortened SHA-256 of each file's content, by path.

    Args:
      tasks: specs of tasks; the files that hold their problems are included.
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
