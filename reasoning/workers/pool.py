"""Calls to untrusted-input code in worker processes that can be killed.

Why not `multiprocessing` or `concurrent.futures`: those re-import the main module, and with it JAX,
into every worker; and they cannot kill one call without losing the others. Here a fresh interpreter
(`reasoning.workers.supervisor`), started without forking this process and its JAX threads, imports
the function once and forks its workers from itself. Replacing a killed worker takes milliseconds.

This bounds time and memory. It is no sandbox: the function must not execute what it is given.
"""

import atexit
import itertools
import multiprocessing.connection
import os
import pickle
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


class WorkerPool:
    """Runs `fn(*args)` in worker processes, each call under a hard time and memory limit.

    A call that takes too long, or whose worker dies (segmentation fault, `os._exit`, out of
    memory), costs only its own result. Thread-safe; a context manager.

    Args:
        fn: A function at the top level of an importable module; not of `__main__`. Arguments and
            results must pickle.
        num_workers: Number of processes.
        timeout_s: Wall-clock limit of one call in seconds; waiting for a free worker not counted.
        memory_mb: Address space of one worker in MiB.
        warm_up: Arguments of one call made before the workers are forked, so that they share what
            it loads and caches.
        on_timeout: The result of a call that was killed for its time.
        on_crash: The result of a call whose worker died.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        num_workers: int,
        timeout_s: float,
        *,
        memory_mb: int = 1024,
        warm_up: tuple | None = None,
        on_timeout: Any = None,
        on_crash: Any = None,
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
        limits = (num_workers, timeout_s, memory_mb << 20)
        self._setup = (fn.__module__, fn.__qualname__, warm_up, *limits)
        self._outcomes = {
            supervisor.TIMED_OUT: on_timeout,
            supervisor.CRASHED: on_crash,
        }
        self._lock = threading.Lock()  # guards the state below; never held while sending
        self._tickets = itertools.count()
        self._pending: dict[int, Future] = {}
        self._connection: multiprocessing.connection.Connection | None = None
        self._process: subprocess.Popen | None = None
        self._closed = False
        self._send_lock = threading.Lock()  # one message at a time, and none on a closed connection
        atexit.register(self.close)

    def map(self, args_list: Iterable[tuple]) -> list[Any]:
        """Results of `fn(*args)` for each tuple, in order.

        Raises:
            WorkerError: If `fn` raised in one of the calls.
        """
        futures = self._submit([pickle.dumps(tuple(args)) for args in args_list])
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

    def _submit(self, payloads: list[bytes]) -> list[Future]:
        if not payloads:
            return []
        with self._lock:
            if self._closed:
                raise ValueError("the worker pool is closed")
            if self._connection is None:
                self._start()
            connection = self._connection
            calls = [(next(self._tickets), payload) for payload in payloads]
            futures = [Future() for _ in calls]
            self._pending.update((ticket, future) for (ticket, _), future in zip(calls, futures))
        with self._send_lock:
            try:
                connection.send(calls)
            except OSError:  # the supervisor died; the reader thread ends the futures
                pass
        return futures

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
            )
        self._connection = ours
        ours.send((sys.path, *self._setup))
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()

    def _read(self, connection) -> None:
        """Hands results to their futures, until the supervisor is gone."""
        outcome, payload = supervisor.CRASHED, None
        while True:
            try:
                ticket, outcome, payload = connection.recv()
            except (EOFError, OSError):
                break
            if ticket is None:  # no function to call: the reason is for everyone
                break
            with self._lock:
                future = self._pending.pop(ticket)
            self._resolve(future, outcome, payload)
            outcome, payload = supervisor.CRASHED, None
        with self._lock:
            abandoned, self._pending = self._pending, {}
            self._connection = None  # the next call starts another supervisor
            _end(self._process)
        with self._send_lock:
            connection.close()
        for future in abandoned.values():
            self._resolve(future, outcome, payload)

    def _resolve(self, future, outcome, payload):
        if outcome == supervisor.RAISED:
            future.set_exception(WorkerError(payload))
        elif outcome != supervisor.RETURNED:
            future.set_result(self._outcomes[outcome])
        else:
            try:
                future.set_result(pickle.loads(payload))
            except Exception as error:  # pickles there and not here: the caller must know
                future.set_exception(WorkerError(f"the result does not unpickle: {error!r}"))


def _end(process: subprocess.Popen) -> None:
    """Kills a supervisor and all its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
