"""Opens local and remote folders alike: a path is local, or begins with gs:// and is read and
written through `etils.epath`.

An object store has no rename, no append and no locks. What a run can rely on there:

- One file is atomic: it is uploaded as a whole object and appears when it is complete. A reader
  finds the old content or the new one. (On a disk, `models.files` does this by a rename.)
- A folder is not atomic. The last file to be written into a checkpoint or an export marks it as
  complete: Orbax's `commit_success.txt`, and `MANIFEST.sha256` of an export, which is also the
  first to be removed. After a kill in between, Orbax removes the checkpoint, and the stage, which
  has no `result.json` yet, exports again.
- A file that grows (`GrowingFile`) is uploaded as a whole again and again. A kill loses the lines
  since the last upload. Every checkpoint uploads them first, so a run that resumes misses none.
- Two runs that start in one folder within a few seconds may not notice each other; see
  `launch.parts.lock`.
"""

import io
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

# Stores that both Orbax (through TensorStore) and `etils.epath` can write to.
SCHEMES = ("gs",)
# Seconds between two uploads of a file that grows, and the part of the time they may take: 1/SHARE.
SECONDS_BETWEEN_UPLOADS, SHARE = 30.0, 50


def as_path(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a file or folder, local or remote.

    A remote path is an `epath.Path`, which has the methods of `pathlib.Path` that are used here.

    Raises:
      ValueError: the scheme of the path is unknown, or the path names no bucket.
    """
    if isinstance(path, Path) or is_remote(path):
        return cast(Path, path)
    text = os.fspath(path)
    found = re.match(r"([A-Za-z][\w+.-]*):(/+)(.*)", text)
    if found is None:
        return Path(text)
    scheme, slashes, rest = found.groups()
    known = ", ".join(f"{each}://BUCKET/FOLDER" for each in SCHEMES)
    if scheme not in SCHEMES:
        raise ValueError(
            f"{text}: paths of {scheme}:// are unknown; give a folder of this machine (./{text} if"
            f" that is one) or {known}"
        )
    if slashes != "//" or not rest:
        raise ValueError(f"{text} names no bucket; write {known}")
    # Imported here, because programs without remote paths need not have it.
    from etils import epath

    return cast(Path, epath.Path(text))


def absolute(path: str | os.PathLike[str]) -> Path:
    """Returns `as_path` of a path, made absolute, with `~` and links resolved if it is local.

    (`epath` would put this machine's working directory in front of a remote path.)
    """
    found = as_path(path)
    return found if is_remote(found) else found.expanduser().resolve()


def is_remote(path: object) -> bool:
    """Tells whether `as_path` has returned a path of a remote store."""
    return not isinstance(path, (str, bytes, Path)) and "://" in str(path)


def check_reachable(path: Path) -> None:
    """Raises an error if a remote store cannot be reached; does nothing for a local path.

    Raises:
      ValueError: a package is missing, or the store refuses; one line says why.
    """
    if not is_remote(path):
        return
    try:
        path.exists()
    except ImportError as error:
        raise ValueError(
            f"{path}: {_line(error)}: install the packages for remote folders by"
            " pip install -e '.[remote]'"
        ) from None
    except Exception as error:  # Each client of a store has exceptions of its own.
        raise ValueError(
            f"{path} cannot be reached ({type(error).__name__}: {_line(error)}): check the bucket's"
            " name, and this machine's credentials"
        ) from None


def make_folder(path: Path) -> None:
    """Creates a folder with its parents; an object store needs none."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a folder with all that is in it, as far as that is possible."""
    if is_remote(path):
        cast(Any, path).rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def move_tree(folder: Path, target: Path) -> None:
    """Moves a folder; in a remote store, which has no rename, by copies of its files."""
    if not is_remote(folder):
        folder.rename(target)
        return
    for path in files_below(folder):
        (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    remove_tree(folder)


def files_below(folder: Path, skipped: Collection[str] = ()) -> Iterator[Path]:
    """Yields all files in a folder and below it, sorted.

    Args:
      folder: where to look; it may be missing.
      skipped: names of folders not to look into.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name in skipped:
            continue
        if path.is_dir():
            yield from files_below(path, skipped)
        elif path.is_file():
            yield path


def size(path: Path) -> int:
    """Returns the bytes of a file."""
    found: Any = path.stat()
    return found.length if is_remote(path) else found.st_size


def modified(path: Path) -> int:
    """Returns when a file was last written, in nanoseconds; a store may round it to seconds."""
    found: Any = path.stat()
    return int(found.mtime * 1e9) if is_remote(path) else found.st_mtime_ns


class GrowingFile:
    """A text file to which a run appends lines.

    A local file has each line at once. A remote one is uploaded anew as a whole: at `flush`, and
    now and then while lines come. So it stays in this process's memory.
    """

    def __init__(self, path: Path):
        """Opens the file behind its present content; creates it if there is none."""
        self._path = path
        self._last, self._pause, self._uploaded = time.monotonic(), SECONDS_BETWEEN_UPLOADS, True
        if is_remote(path):
            self._file: Any = io.BytesIO()
            if path.exists():
                self._file.write(path.read_bytes())
        else:
            self._file = open(path, "ab")

    def append(self, line: str) -> None:
        """Writes a line, to which the line break is added."""
        self._file.write(line.encode() + b"\n")
        self._uploaded = False
        if not is_remote(self._path):
            self._file.flush()
        elif time.monotonic() - self._last >= self._pause:
            self.flush()

    def flush(self) -> None:
        """Uploads what has not been uploaded yet; a local file has it already."""
        if not is_remote(self._path) or self._uploaded:
            return
        begun = time.monotonic()
        self._path.write_bytes(self._file.getvalue())
        self._last, self._uploaded = time.monotonic(), True
        self._pause = max(SECONDS_BETWEEN_UPLOADS, SHARE * (self._last - begun))

    def close(self) -> None:
        """Uploads the rest and closes the file."""
        self.flush()
        self._file.close()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
