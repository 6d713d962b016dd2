"""Keeps a working directory to one run at a time, by a lock file that names process and host."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a working directory for this process.

    The kernel drops the lock of a process that has died, so a stale lock file of this host is taken
    over. Whether a lock of another host is stale cannot be known; a user must remove it by hand.

    Raises:
      ValueError: another run holds the directory; the line names its process and its host.
    """
    path = directory / LOCK_FILE
    file = _open_locked(path)
    try:
        holder = _holder(file)
        if holder.get("host", socket.gethostname()) != socket.gethostname():
            raise ValueError(_in_use(path, holder))
        mine = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(mine).encode() + b"\n", 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def is_held(directory: Path) -> bool:
    """Tells whether a run is working in a directory, as far as can be seen without locking it.

    Of a run on another host only the lock file can be seen, which a killed run leaves behind.
    """
    try:
        with open(directory / LOCK_FILE, "rb") as file:
            holder = _holder(file.fileno())
    except OSError:
        return False
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return bool(holder)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # A process of another user.
        return True
    return True


def _open_locked(path: Path) -> int:
    """Returns a descriptor of the lock file, which this process alone has locked."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed the file between the two calls, and a third process may
            # have made a new one.
            if os.stat(path).st_ino == os.fstat(file).st_ino:
                return file
        except BlockingIOError:
            message = _in_use(path, _holder(file))
            os.close(file)
            raise ValueError(message) from None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(file)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise OSError(
                    f"{path}: this file system has no locks ({error.strerror}); give a --workdir on"
                    " another one"
                ) from None
            raise
        os.close(file)


def _holder(file: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(file, 4096, 0) or b"{}")
    except ValueError:  # A process that died while it wrote.
        return {}
    return found if isinstance(found, dict) else {}


def _in_use(path: Path, holder: dict[str, object]) -> str:
    who = f"process {holder.get('pid', '?')} on host {holder.get('host', '?')}"
    since = f" since {holder['since']}" if "since" in holder else ""
    return (
        f"{path.parent} is in use by {who}{since}: wait for that run, or give another --workdir; if"
        f" it has ended, remove {path}"
    )
