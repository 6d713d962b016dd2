"""Renders the jinja chat templates of HF tokenizers, with limits of time and memory.

A template is a program that comes with a checkpoint. It runs in jinja's sandbox, in a worker
process with limits: a template that loops forever or builds a huge text raises a `ValueError`.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Limits of one rendering: processor time, address space of the worker, length of the text. A chat
# template takes milliseconds. The limit on wall time catches a worker that waits without computing.
CPU_SECONDS = 3.0
WALL_SECONDS = 120.0
MEMORY_BYTES = 512 * 2**20
MAX_CHARACTERS = 32 * 2**20

_WORKER_FILE = Path(__file__).with_name("chat_template_worker.py")


def render(template: str, *, name: str = "chat template", **variables: Any) -> str:
    """Renders a chat template with the semantics of transformers' `apply_chat_template`.

    Args:
      template: jinja source.
      name: name of the template in error messages, such as its file.
      **variables: variables of the template, with values that JSON can hold.

    Raises:
      ValueError: if the template is malformed, reaches out of the sandbox, calls
        `raise_exception`, fails, or exceeds a limit. The message is one line and names the
        template's line if that is known.
    """
    try:
        request = json.dumps([template, variables])
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: its variables cannot be written as JSON: {error}") from None
    reply = _worker.ask(f"{CPU_SECONDS} {request}\n".encode())
    if "error" in reply:
        place = f", line {reply['line']}" if reply.get("line") else ""
        raise ValueError(f"{name}{place}: {reply['error']}")
    return reply["text"]


class _Worker:
    """The worker process; it starts at the first request and again after a request killed it."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._owner: int | None = None
        self._lock = threading.Lock()

    def ask(self, request: bytes) -> dict[str, Any]:
        with self._lock:
            process = self._running()
            try:
                process.stdin.write(request)
                process.stdin.flush()
                line = _read_line(process.stdout.fileno(), WALL_SECONDS)
            except BrokenPipeError:
                line = b""
            except BaseException:  # Its late reply must not answer the next request.
                self.stop()
                raise
            if line:
                return json.loads(line)
            self.stop()
            if process.returncode == -signal.SIGPROF:
                return {"error": f"it took longer than {CPU_SECONDS:g} s of processor time"}
            return {"error": "it took too much time or memory"}

    def stop(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.stdin.close()
            # Wait first, so that the exit status of a killed worker shows the signal.
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
        self._process = None

    def _running(self) -> subprocess.Popen:
        # A forked child must not share its parent's worker.
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_WORKER_FILE), str(MEMORY_BYTES), str(MAX_CHARACTERS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._owner = os.getpid()
        return self._process


def _read_line(file: int, seconds: float) -> bytes:
    """Reads one line from a pipe; returns nothing if the pipe or the time ends first."""
    parts, deadline = [], time.monotonic() + seconds
    while not (parts and parts[-1].endswith(b"\n")):
        if not select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return b""
        part = os.read(file, 1 << 20)
        if not part:
            return b""
        parts.append(part)
    return b"".join(parts)


_worker = _Worker()
atexit.register(_worker.stop)
# A lock that another thread holds while this process forks would stay locked in the child.
os.register_at_fork(after_in_child=lambda: setattr(_worker, "_lock", threading.Lock()))
