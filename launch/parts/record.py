"""Records in a run's folder which commands worked there, and writes the run's report page."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.parts import machine
from launch.report.page import write_page
from launch.report.sources import RECORD_FILE, last_change
from models.files import read_json, write_atomically

# While a run goes on, its page is written no more often than this, and building it takes at most
# one part in `SHARE` of the time.
SECONDS_BETWEEN_PAGES, SHARE = 10.0, 100
# A run that ends sooner has no page before its end.
SECONDS_TO_FIRST_PAGE = 3.0
# The record keeps the latest commands, this many.
MOST_COMMANDS = 50
_PACKAGES = ("ergo", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_REMEDY = "remove it; the run's results do not depend on it"


@contextlib.contextmanager
def recorded(directory: Path) -> Iterator[None]:
    """Records a command while it works in a run's folder, and writes the report page at its end.

    While the command works, a thread writes the page anew whenever the run has logged something.
    `run.json` gets the command line, versions and machine at once, and at the end how the command
    ended: complete, interrupted, or failed and why. If the page cannot be written, one line says so
    and nothing else changes: results never depend on it.

    Only process 0 of a job may call this.

    Args:
      directory: the run's folder, which this process has locked.
    """
    path, start = directory / RECORD_FILE, time.monotonic()
    known = read_json(path, _REMEDY).get("invocations", []) if path.exists() else []
    entry: dict[str, Any] = {
        "command": command_line(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "state": "running",
        "machine": machine.describe() | {"system": platform.platform()},
        "versions": _versions(),
        "code": _code(),
    }

    def write() -> None:
        kept = [*known, entry][-MOST_COMMANDS:]
        write_atomically(path, json.dumps({"invocations": kept}, indent=2) + "\n")

    write()
    live = LivePage(directory)
    try:
        yield
    except KeyboardInterrupt as error:
        entry |= {"state": "interrupted", "reason": _line(error)}
        raise
    except BaseException as error:
        entry |= {"state": "failed", "reason": _line(error)}
        raise
    else:
        entry["state"] = "complete"
    finally:
        live.close()
        entry["seconds"] = time.monotonic() - start
        with contextlib.suppress(OSError):  # Such as a full disk, which the run itself reports.
            write()
        page = page_of(directory)
        if page is not None and entry["state"] == "complete":
            print(f"page: {page}")


class LivePage:
    """Writes the page of a run that goes on, in a thread, at most every few seconds.

    The thread looks at the times of the run's files, so that no training step waits for it.
    """

    def __init__(self, directory: Path):
        """Starts to watch the run's folder."""
        self._directory, self._end = directory, threading.Event()
        self._thread = threading.Thread(target=self._run, name="report page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; a page that it is writing is written first."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        wait, shown = SECONDS_TO_FIRST_PAGE, 0
        while not self._end.wait(wait):
            begun = time.monotonic()
            changed = last_change(self._directory)
            if changed > shown:
                shown = changed
                if page_of(self._directory, live=True) is None:
                    return  # It has told why, and need not do so every few seconds.
            wait = max(SECONDS_BETWEEN_PAGES, SHARE * (time.monotonic() - begun))


def page_of(directory: Path, live: bool = False) -> Path | None:
    """Writes the report page of a run and returns its path; tells why if it cannot.

    Args:
      directory: the run's folder.
      live: the run goes on.
    """
    try:
        return write_page(directory, live)
    except Exception as error:  # A fault of the page must not end a run of many hours.
        print(f"warning: no report page: {_line(error)}", file=sys.stderr)
        return None


def command_line() -> str | None:
    """Returns the command that started this process; None if it is no entry point of `launch`.

    Passwords within URLs are left out.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or not spec.name.startswith("launch."):
        return None
    line = shlex.join(["python", "-m", spec.name, *sys.argv[1:]])
    return re.sub(r"(\w://)[^/@\s']+@", r"\1…@", line)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _code() -> str | None:
    """Returns the commit of the checkout, and whether its files differ; None outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()  # fmt: skip

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (", with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
