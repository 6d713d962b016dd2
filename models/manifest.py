"""Writes and checks checksums of a folder's files, so that damaged files are reported, not loaded.

`MANIFEST.sha256` has the format of `sha256sum`, so `sha256sum -c MANIFEST.sha256` in the folder
makes the same check.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from models.files import write_atomically
from models.host.storage import as_path, files_below, size

MANIFEST_FILE = "MANIFEST.sha256"
_BLOCK_BYTES = 1 << 22
_SMALL_BYTES = 1 << 20


class Damaged(ValueError):
    """A file is missing or has changed since it was written; the message names it in one line."""


def write_manifest(directory: str | os.PathLike, leave_out: Iterable[str] = ()) -> None:
    """Writes the checksums of all files below a folder; call it after all files are written.

    Args:
      leave_out: names of files at the folder's root that may change later.
    """
    directory = as_path(directory)
    names = _files(directory, leave_out)
    digests = _digests([directory / name for name in names])
    lines = [f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True)]
    write_atomically(directory / MANIFEST_FILE, "".join(lines))


def _files(directory: Path, leave_out: Iterable[str]) -> list[str]:
    """Returns the sorted names of all files below a folder that its manifest covers."""
    left_out = {MANIFEST_FILE, *leave_out}
    names = (path.relative_to(directory).as_posix() for path in files_below(directory))
    return sorted(name for name in names if name not in left_out)


def has_manifest(directory: str | os.PathLike) -> bool:
    """Returns whether a folder has a manifest."""
    return (as_path(directory) / MANIFEST_FILE).exists()


def check_manifest(
    directory: str | os.PathLike,
    *,
    only_small: bool = False,
    leave_out: Iterable[str] | None = None,
) -> None:
    """Compares a folder's files with their checksums.

    Args:
      only_small: whether to read only files of up to 1 MiB; larger ones must merely exist.
      leave_out: the `leave_out` that the manifest was written with. If given, a file that the
        manifest lacks counts as damage, too; with None such files are ignored.

    Raises:
      Damaged: the manifest is missing, unreadable or incomplete, or a file is missing or differs.
    """
    directory = as_path(directory)
    wanted = _read(directory / MANIFEST_FILE)
    if leave_out is not None:
        if further := [name for name in _files(directory, leave_out) if name not in wanted]:
            raise Damaged(f"{directory / MANIFEST_FILE} is damaged: it lacks {further[0]}")
    if missing := [name for name in wanted if not (directory / name).is_file()]:
        raise Damaged(f"{directory / missing[0]} is missing")
    paths = {directory / name: digest for name, digest in wanted.items()}
    if only_small:
        paths = {p: digest for p, digest in paths.items() if size(p) <= _SMALL_BYTES}
    for path, found in zip(paths, _digests(list(paths)), strict=True):
        if found != paths[path]:
            raise Damaged(f"{path} is damaged: it differs from its checksum in {MANIFEST_FILE}")


def _read(path: Path) -> dict[str, str]:
    """Returns the checksum of each file by its name."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except UnicodeDecodeError:
        raise Damaged(f"{path} is damaged: it is not text") from None
    pairs = [line.partition("  ") for line in lines]
    if not pairs or any(len(digest) != 64 or not name for digest, _, name in pairs):
        raise Damaged(f"{path} is damaged: a line does not consist of checksum and file name")
    return {name: digest for digest, _, name in pairs}


def _digests(paths: list[Path]) -> list[str]:
    """Returns the SHA-256 of each file."""
    # Threads work in parallel here, because hashing does not hold Python's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str:
    digest, block = hashlib.sha256(), bytearray(_BLOCK_BYTES)
    with path.open("rb") as file:
        while count := cast(Any, file).readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()
