"""The program behind `WorkerPool`: forks workers, watches their time and replaces dead ones.

It runs in its own interpreter with one thread and without JAX, so that forking is safe. It has few
imports because it is started as a plain file, before `sys.path` is set.

Every message is JSON, so that reading one executes nothing, even if hostile input has taken over
the worker that wrote it. The supervisor accepts from a worker only results of the call that this
worker holds.
"""

import collections
import gc
import importlib
import json
import multiprocessing.connection
import os
import resource
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

# How a call ended.
RETURNED, RAISED, TIMED_OUT, CRASHED = "returned", "raised", "timed out", "crashed"

# The longest message, in bytes.
MAX_MESSAGE = 256 << 20

# The most calls that a worker gets at once. If it dies, the calls that it had not begun go back
# into the queue.
_CHUNK = 16


def send(connection: Connection, message: Any) -> None:
    """Sends plain JSON data.

    Raises:
      OSError: the other side is gone.
    """
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> Any:
    """Returns the next message that `send` sent.

    Raises:
      EOFError, OSError: the other side is gone, or its message is too long.
      ValueError, RecursionError: the message is not JSON.
    """
    return json.loads(connection.recv_bytes(MAX_MESSAGE))


class _Worker:
    """A forked process that computes calls one after another.

    Attributes:
      calls: the calls it holds, each [ticket, arguments as JSON text]; it computes the first one.
      deadline: the time by which the first call must be done, in `time.monotonic()` seconds.
    """

    def __init__(self, fn, memory_bytes, cpu_s, unrelated):
        self.calls = collections.deque()
        self.deadline = None
        self.connection, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for connection in (*unrelated, self.connection):
                # Otherwise this copy would keep the connection open when its owner is gone.
                connection.close()
            _work(fn, memory_bytes, cpu_s, theirs)
        theirs.close()

    def kill(self) -> int:
        """Ends the process.

        Returns the number of the signal that had ended it before, or 0.
        """
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status = os.waitpid(self.pid, 0)
        self.connection.close()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _work(fn, memory_bytes, cpu_s, connection):
    """Runs a worker's loop; never returns."""
    # The kernel sends this signal when a call has used up its processor time; it ends the process.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        while True:
            for ticket, arguments in receive(connection):
                signal.setitimer(signal.ITIMER_PROF, cpu_s)
                try:
                    result = RETURNED, json.dumps(fn(*json.loads(arguments)))
                except MemoryError:
                    os._exit(1)
                except Exception:
                    result = RAISED, traceback.format_exc()
                signal.setitimer(signal.ITIMER_PROF, 0)
                send(connection, [ticket, *result])
    except (EOFError, OSError):
        os._exit(0)  # The supervisor is gone.
    finally:
        # Any other exception (SystemExit, ...) must not unwind into the supervisor's code.
        os._exit(1)


def _supervise(parent, fn, num_workers, timeout_s, memory_bytes, cpu_s):
    """Serves calls until the parent closes the connection."""
    queue = collections.deque()
    workers = []

    def start_worker():
        unrelated = [parent, *(w.connection for w in workers)]
        workers.append(_Worker(fn, memory_bytes, cpu_s, unrelated))

    def give_work(worker):
        share = max(1, min(_CHUNK, len(queue) // (4 * num_workers)))
        calls = [queue.popleft() for _ in range(min(share, len(queue)))]
        if calls:
            worker.calls.extend(calls)
            worker.deadline = time.monotonic() + timeout_s
            try:
                send(worker.connection, calls)
            except OSError:  # The worker died while idle; the loop below will notice.
                pass

    def replace(worker, outcome):
        ended_by = worker.kill()
        if outcome == CRASHED and ended_by == signal.SIGPROF:
            outcome = TIMED_OUT
        workers.remove(worker)
        if worker.calls:
            ticket, _ = worker.calls.popleft()
            queue.extendleft(reversed(worker.calls))
            send(parent, [ticket, outcome, None])
        start_worker()

    for _ in range(num_workers):
        start_worker()
    while True:
        for worker in workers:
            if queue and not worker.calls:
                give_work(worker)
        busy = [worker.deadline for worker in workers if worker.calls]
        patience = max(0.0, min(busy) - time.monotonic()) if busy else None
        by_connection = {worker.connection: worker for worker in workers}
        ready = multiprocessing.connection.wait([parent, *by_connection], patience)
        for connection in ready:
            if connection is parent:
                queue.extend(receive(parent))
                continue
            worker = by_connection[connection]
            try:
                ticket, outcome, result = receive(worker.connection)
                if ticket != worker.calls[0][0]:
                    raise ValueError("the worker answered a call of another worker")
            except (EOFError, OSError, ValueError, LookupError, TypeError, RecursionError):
                # The worker is dead, or hostile input has taken it over.
                replace(worker, CRASHED)
                continue
            worker.calls.popleft()
            worker.deadline = time.monotonic() + timeout_s
            send(parent, [ticket, outcome, result])
        now = time.monotonic()
        for worker in list(workers):
            if worker.calls and worker.deadline <= now and not worker.connection.poll():
                replace(worker, TIMED_OUT)


def main() -> None:
    """Imports the function that the parent names and serves calls until the parent is gone.

    The command-line argument is the descriptor of the connection to the parent.
    """
    parent = multiprocessing.connection.Connection(int(sys.argv[1]))
    path, module, name, warm_up, *limits = receive(parent)
    sys.path[:] = path
    try:
        fn = getattr(importlib.import_module(module), name)
        if warm_up is not None:
            fn(*warm_up)
    except Exception:
        send(parent, [None, RAISED, traceback.format_exc()])
        raise
    gc.freeze()  # so that imported data stay shared with the forked workers
    try:
        _supervise(parent, fn, *limits)
    except (EOFError, OSError):
        # The parent is gone. A busy worker would not notice, so this kills the whole session.
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
