"""Calls a function on untrusted input in worker processes that can be killed.

Neither `multiprocessing` nor `concurrent.futures` serves here: both import the main module, and
with it JAX, again in every worker, and neither can kill one call without losing the others. So this
module starts a fresh interpreter (`reasoning.workers.supervisor`) without forking this process and
its JAX threads. That interpreter imports the function once and forks its workers from itself, so
replacing a killed worker takes milliseconds.

The pool limits time and memory. It is no sandbox: the function must not execute its input.
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
    """The function itself raised; the message is the traceback of the worker."""


# The outcome of a call whose processes were killed from outside, and how often it is tried in all.
_LOST = "lost"
MAX_STARTS = 3


@dataclasses.dataclass
class _Call:
    """A call that waits for its result, and how often it was started."""

    payload: str
    future: Future[Any] = dataclasses.field(default_factory=Future)
    starts: int = 1


class WorkerPool:
    """Runs `fn(*args)` in worker processes, each call under a hard limit on time and memory.

    If a call takes too long, or its worker dies (segmentation fault, `os._exit`, out of memory),
    only the result of that call is lost. The pool is thread-safe and a context manager.

    Args:
      fn: a function at the top level of an importable module other than `__main__`. Its arguments
        and results are plain JSON data: None, bool, int, float, str, list and dict with text keys.
        A tuple arrives as a list.
      num_workers: the number of processes.
      timeout_s: limit of one call in seconds on the clock, without the wait for a free worker.
      cpu_s: limit of one call in processor seconds, so that the result does not depend on what else
        the machine does; 0 for no limit.
      memory_mb: address space of one worker in MiB.
      warm_up: arguments of one call that is made before the workers are forked, so that they share
        what it loads and caches.
      on_timeout: the result of a call that was killed for its time.
      on_crash: the result of a call whose worker died.
      on_lost: the result of a call whose processes were all killed from outside `MAX_STARTS` times;
        the pool repeats the call until then. `on_crash` by default.

    Raises:
      ValueError: a worker cannot import `fn`, or a number is not positive.
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
                f"a worker cannot import {fn.__module__}.{fn.__qualname__}: define it at the top"
                " level of a module"
            )
        if num_workers < 1 or timeout_s <= 0:
            raise ValueError(
                f"num_workers={num_workers}, timeout_s={timeout_s}: give positive numbers"
            )
        limits = (num_workers, timeout_s, memory_mb << 20, cpu_s)
        self._setup = (fn.__module__, fn.__qualname__, warm_up, *limits)
        self._outcomes = {
            supervisor.TIMED_OUT: on_timeout,
            supervisor.CRASHED: on_crash,
            _LOST: on_crash if on_lost is None else on_lost,
        }
        self._lock = threading.Lock()  # guards the state below; nothing is sent while it is held
        self._tickets = itertools.count()
        self._pending: dict[int, _Call] = {}
        self._connection: multiprocessing.connection.Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        # Only one thread sends at a time, and none on a closed connection.
        self._send_lock = threading.Lock()
        atexit.register(self.close)

    def map(self, args_list: Iterable[tuple]) -> list[Any]:
        """Returns the results of `fn(*args)` for each tuple, in order.

        Raises:
          WorkerError: `fn` raised in one of the calls, or its result is not JSON.
          TypeError, ValueError: an argument is not JSON, or the pool is closed.
        """
        futures = self._submit([json.dumps(args) for args in args_list])
        return [future.result() for future in futures]

    def __call__(self, *args: Any) -> Any:
        """Makes one call and waits for its result."""
        return self.map([args])[0]

    def close(self) -> None:
        """Kills the workers. Calls that still wait end with `on_crash`."""
        with self._lock:
            self._closed = True
            if self._process:
                _end(self._process)
        atexit.unregister(self.close)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _submit(self, payloads: list[str]) -> list[Future]:
        if not payloads:
            return []
        with self._lock:
            if self._closed:
                raise ValueError("the worker pool is closed: create a new one")
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
            except OSError:  # The supervisor died; the reader thread repeats the calls.
                pass

    def _start(self) -> None:
        # The type checker takes the two ends for those of Windows, which are of another class.
        pipe: Any = multiprocessing.Pipe()
        ours, theirs = pipe
        with theirs:
            # -P keeps the script's folder off sys.path, where modules of this project would hide
            # others of the same name.
            command = [sys.executable, "-P", supervisor.__file__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C then reaches only this process, and `_end` finds all processes to kill.
                start_new_session=True,
                # Sets get the same order in every run, so that verdicts cannot depend on it.
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
        self._connection = ours
        supervisor.send(ours, [sys.path, *self._setup])
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()

    def _read(self, connection) -> None:
        """Passes results to their futures until the supervisor is gone."""
        outcome, payload = supervisor.CRASHED, None
        while True:
            try:
                ticket, outcome, payload = supervisor.receive(connection)
            except (EOFError, OSError):
                break
            if ticket is None:  # The function cannot be called; every call gets the reason.
                break
            with self._lock:
                call = self._pending.pop(ticket)
            self._resolve(call.future, outcome, payload)
            outcome, payload = supervisor.CRASHED, None
        with self._lock:
            abandoned, self._pending = self._pending, {}
            self._connection = None  # the next call starts another supervisor
            if self._process is not None:
                _end(self._process)
            again: dict[int, _Call] = {}
            successor = None
            if outcome == supervisor.CRASHED and not self._closed:
                # The supervisor was killed from outside, which says nothing about the calls.
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
                future.set_exception(WorkerError(f"the function's result is not JSON: {error!r}"))
            else:
                future.set_result(result)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a supervisor and all its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
