"""Keeps a working directory to one run at a time, by a lock file that names process and host.

A remote store has no locks. There the holder writes its lock file anew every so many seconds, and a
file that stays as it is belongs to a run that has died.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from models.host.storage import is_remote

LOCK_FILE = ".lock"
# Seconds between two renewals of a remote lock, and how many a run may miss before it counts as
# dead.
SECONDS_BETWEEN_RENEWALS, RENEWALS_MISSED = 15.0, 3


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a working directory for this process.

    The kernel drops the lock of a process that has died, so a stale lock file of this host is taken
    over. Whether a lock of another host is stale cannot be known; a user must remove it by hand.
    In a remote store this waits until it is known.

    Raises:
      ValueError: another run holds the directory; the line names its process and its host.
    """
    path = directory / LOCK_FILE
    if is_remote(path):
        with _locked_remotely(path):
            yield
        return
    file = _open_locked(path)
    try:
        holder = _holder(file)
        if holder.get("host", socket.gethostname()) != socket.gethostname():
            raise ValueError(_in_use(path, holder))
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_this_process()).encode() + b"\n", 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def is_held(directory: Path) -> bool:
    """Tells whether a run is working in a directory, as far as can be seen without locking it.

    Of a run on another host, or in a remote store, only the lock file can be seen, which a killed
    run leaves behind.
    """
    if is_remote(directory):
        return (directory / LOCK_FILE).exists()
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


@contextlib.contextmanager
def _locked_remotely(path: Path) -> Iterator[None]:
    """Holds a lock file in a remote store. Two runs that start at the same moment may both hold it.

    Raises:
      ValueError: another run holds it.
    """
    found = _read_remote(path)
    if found and not _has_ended(found):
        wait = SECONDS_BETWEEN_RENEWALS * RENEWALS_MISSED
        print(f"{path} is there: waiting {wait:.0f} s to see whether its run is alive", flush=True)
        end = time.monotonic() + wait
        while time.monotonic() < end:
            time.sleep(SECONDS_BETWEEN_RENEWALS / 5)
            if (now := _read_remote(path)) not in ({}, found):
                raise ValueError(_in_use(path, now))
    mine, ended = _this_process(), threading.Event()
    path.write_text(json.dumps(mine))

    def renew() -> None:
        renewals = 0
        while not ended.wait(SECONDS_BETWEEN_RENEWALS):
            renewals += 1
            # A store that cannot be reached for a moment must not end a long run.
            with contextlib.suppress(Exception):
                path.write_text(json.dumps(mine | {"renewals": renewals}))

    thread = threading.Thread(target=renew, name="remote lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _read_remote(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_ended(holder: dict[str, object]) -> bool:
    """Tells whether a lock's process was one of this host and is gone.

    In a container a new process may have the number of the one that wrote the lock.
    """
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    return pid == os.getpid() or not os.path.exists(f"/proc/{pid}")


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
