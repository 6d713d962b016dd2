"""A stand-in for gs:// that keeps objects in a local folder and can do what a bucket can, no more.

There are no folders of their own, no rename and no append; an object appears when it is complete.
"""

import fnmatch
import io
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from etils.epath import gpath, stat_utils
from orbax.checkpoint._src.path import gcs_utils


class Bucket:
    """The backend of `etils.epath` for gs://.

    Attributes:
      root: the folder with the objects: gs://a/b is `root`/a/b.
      refused: calls that a bucket cannot answer.
    """

    def __init__(self, root: Path):
        self.root, self.refused = root, []

    def local(self, path) -> Path:
        return self.root / os.fspath(path).removeprefix("gs://")

    def open(self, path, mode):
        place = self.local(path)
        if "r" in mode:
            return place.open(mode)
        if "a" in mode:
            self._refuse(f"append to {path}")
        return _Upload(place, text="b" not in mode)

    def exists(self, path):
        return self.local(path).is_file() or self.isdir(path)

    def isdir(self, path):
        return any(files for _, _, files in os.walk(self.local(path)))

    def listdir(self, path):
        if not self.isdir(path):
            raise FileNotFoundError(path)
        return [each.name for each in self.local(path).iterdir() if self.exists(each)]

    def glob(self, pattern):
        folder, _, name = os.fspath(pattern).rpartition("/")
        if not self.isdir(folder):
            return []
        return [f"{folder}/{each}" for each in fnmatch.filter(self.listdir(folder), name)]

    def makedirs(self, path, *, exist_ok=False, mode=None):
        if not exist_ok and self.exists(path):
            raise FileExistsError(path)

    mkdir = makedirs

    def rmtree(self, path):
        if not self.isdir(path):
            raise FileNotFoundError(path)
        shutil.rmtree(self.local(path))

    def remove(self, path):
        self.local(path).unlink()

    def rename(self, path, dst):
        self._refuse(f"rename {path} to {dst}")

    replace = rename

    def copy(self, path, dst, overwrite):
        self._refuse(f"copy {path} to {dst}")

    def walk(self, top, **options):
        self._refuse(f"walk {top}")

    def stat(self, path):
        found = self.local(path).stat()
        return stat_utils.StatResult(self.isdir(path), found.st_size, int(found.st_mtime))

    def _refuse(self, what):
        self.refused.append(what)
        raise NotImplementedError(what)


class _Upload(io.BytesIO):
    """An object that appears when it is closed."""

    def __init__(self, place: Path, text: bool):
        super().__init__()
        self._place, self._text = place, text

    def write(self, data):
        return super().write(data.encode() if self._text else data)

    def close(self):
        if not self.closed:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._place.write_bytes(self.getvalue())
        super().close()


def install(patched: pytest.MonkeyPatch, root: Path) -> Bucket:
    """Makes gs:// lead to a folder, for `etils.epath` and for the arrays of TensorStore."""
    bucket = Bucket(root)
    patched.setitem(gpath._PREFIX_TO_BACKEND, "gs", bucket)

    def store(path):
        # A path is a prefix of keys, but for this one file. TensorStore's driver of local files
        # tells these apart by the slash.
        end = "" if path.endswith("/_sharding") else "/"
        return {"driver": "file", "path": f"{bucket.local(path)}{end}"}

    patched.setattr(gcs_utils, "get_kvstore_for_gcs", store)
    patched.setattr(
        gcs_utils, "get_bucket", lambda name: SimpleNamespace(hierarchical_namespace_enabled=False)
    )
    return bucket
