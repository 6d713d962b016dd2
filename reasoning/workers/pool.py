"""Calls to untrusted-input code in worker processes that can be killed.

Why not `multiprocessing` or `concurrent.futures`: those re-import the main module, and with it JAX,
into every worker; and they cannot kill one call without losing the others. Here a fresh interpreter
(`reasoning.workers.supervisor`), started without forking this process and its JAX threads, imports
the function once and forks its workers from itself. Replacing a killed worker takes milliseconds.

This bounds time and memory. It is no sandbox: the function must not execute what it is given.
"""

import atexit
import dataclasses
import itertools
import json
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from reasoning.workers import supervisor


class WorkerError(RuntimeError):
    """The function itself raised; carries the worker's traceback."""


# Outcome of a call whose processes were killed from outside, and how often it is made in all.
_LOST = "lost"
MAX_STARTS = 3


@dataclasses.dataclass
class _Call:
    """A call that waits for its result, and how often it was begun."""

    payload: bytes
    future: Future = dataclasses.field(default_factory=Future)
    starts: int = 1


class WorkerPool:
    """Runs `fn(*args)` in worker processes, each call under a hard time and memory limit.

    A call that takes too long, or whose worker dies (segmentation fault, `os._exit`, out of
    memory), costs only its own result. Thread-safe; a context manager.

    Args:
        fn: A function at the top level of an importable module; not of `__main__`. Arguments and
            results are plain JSON data: None, bool, int, float, str, list and dict with text for
            keys. A tuple arrives as a list.
        num_workers: Number of processes.
        timeout_s: Wall-clock limit of one call in seconds; waiting for a free worker not counted.
        cpu_s: Limit of one call in processor seconds, so that the outcome does not depend on what
            else the machine does; 0 for none.
        memory_mb: Address space of one worker in MiB.
        warm_up: Arguments of one call made before the workers are forked, so that they share what
            it loads and caches.
        on_timeout: The result of a call that was killed for its time.
        on_crash: The result of a call whose worker died.
        on_lost: The result of a call for which all processes were killed from outside
            `MAX_STARTS` times; until then it is made again. `on_crash` if not given.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        num_workers: int,
        timeout_s: float,
        *,
        cpu_s: float = 0.0,
        memory_mb: int = 1024,
        warm_up: tuple | None = None,
        on_timeout: Any = None,
        on_crash: Any = None,
        on_lost: Any = None,
    ):
        if fn.__module__ == "__main__" or "." in fn.__qualname__:
            raise ValueError(
                f"{fn.__module__}.{fn.__qualname__} cannot be imported by a worker: define it at"
                " the top level of a module"
            )
        if num_workers < 1 or timeout_s <= 0:
            raise ValueError(
                f"num_workers={num_workers}, timeout_s={timeout_s}: both must be positive"
            )
        limits = (num_workers, timeout_s, memory_mb << 20, cpu_s)
        self._setup = (fn.__module__, fn.__qualname__, warm_up, *limits)
        self._outcomes = {
            supervisor.TIMED_OUT: on_timeout,
            supervisor.CRASHED: on_crash,
            _LOST: on_crash if on_lost is None else on_lost,
        }
        self._lock = threading.Lock()  # guards the state below; never held while sending
        self._tickets = itertools.count()
        self._pending: dict[int, _Call] = {}
        self._connection: multiprocessing.connection.Connection | None = None
        self._process: subprocess.Popen | None = None
        self._closed = False
        self._send_lock = threading.Lock()  # one message at a time, and none on a closed connection
        atexit.register(self.close)

    def map(self, args_list: Iterable[tuple]) -> list[Any]:
        """Results of `fn(*args)` for each tuple, in order.

        Raises:
            WorkerError: If `fn` raised in one of the calls, or its result is not JSON.
            TypeError, ValueError: If an argument is not JSON.
        """
        futures = self._submit([json.dumps(args) for args in args_list])
        return [future.result() for future in futures]

    def __call__(self, *args) -> Any:
        """One call, waited for."""
        return self.map([args])[0]

    def close(self) -> None:
        """Kills the workers. Calls still waiting end with `on_crash`."""
        with self._lock:
            self._closed = True
            if self._process:
                _end(self._process)
        atexit.unregister(self.close)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _submit(self, payloads: list[str]) -> list[Future]:
        if not payloads:
            return []
        with self._lock:
            if self._closed:
                raise ValueError("the worker pool is closed")
            if self._connection is None:
                self._start()
            connection = self._connection
            calls = {next(self._tickets): _Call(payload) for payload in payloads}
            self._pending.update(calls)
        self._send(connection, calls)
        return [call.future for call in calls.values()]

    def _send(self, connection, calls):
        with self._send_lock:
            try:
                supervisor.send(
                    connection, [(ticket, call.payload) for ticket, call in calls.items()]
                )
            except OSError:  # the supervisor died; the reader thread makes the calls again
                pass

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            # -P: no script folder on sys.path, where our modules would hide others of that name.
            command = [sys.executable, "-P", supervisor.__file__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, and `_end` finds all its processes
                # Sets have one order in every run, so that verdicts cannot depend on it.
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
        self._connection = ours
        supervisor.send(ours, [sys.path, *self._setup])
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()

    def _read(self, connection) -> None:
        """Hands results to their futures, until the supervisor is gone."""
        outcome, payload = supervisor.CRASHED, None
        while True:
            try:
                ticket, outcome, payload = supervisor.receive(connection)
            except (EOFError, OSError):
                break
            if ticket is None:  # no function to call: the reason is for everyone
                break
            with self._lock:
                call = self._pending.pop(ticket)
            self._resolve(call.future, outcome, payload)
            outcome, payload = supervisor.CRASHED, None
        with self._lock:
            abandoned, self._pending = self._pending, {}
            self._connection = None  # the next call starts another supervisor
            _end(self._process)
            again: dict[int, _Call] = {}
            successor = None
            if outcome == supervisor.CRASHED and not self._closed:
                # It was killed from outside: that says nothing about the calls.
                outcome = _LOST
                again = {t: call for t, call in abandoned.items() if call.starts < MAX_STARTS}
            if again:
                for call in again.values():
                    call.starts += 1
                self._pending.update(again)
                self._start()
                successor = self._connection
        with self._send_lock:
            connection.close()
        for ticket, call in abandoned.items():
            if ticket not in again:
                self._resolve(call.future, outcome, payload)
        if again:
            self._send(successor, again)

    def _resolve(self, future, outcome, payload):
        if outcome == supervisor.RAISED:
            future.set_exception(WorkerError(payload))
        elif outcome != supervisor.RETURNED:
            future.set_result(self._outcomes[outcome])
        else:
            try:
                result = json.loads(payload)
            except (ValueError, TypeError, RecursionError) as error:
                future.set_exception(WorkerError(f"the result is no JSON: {error!r}"))
            else:
                future.set_result(result)


def _end(process: subprocess.Popen) -> None:
    """Kills a supervisor and all its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
