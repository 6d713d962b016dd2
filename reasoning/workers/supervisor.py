"""The program behind `reasoning.workers`: forks workers, watches their time, replaces the dead.

It runs in an interpreter of its own, with one thread and without JAX, so that forking is safe. Its
imports are few because it is started as a plain file, before `sys.path` is set.

Every message is JSON, so that reading one runs nothing, whatever a hostile text has made of the
worker that wrote it. The supervisor believes a worker only about the call that this worker holds.
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

# How a call ended.
RETURNED, RAISED, TIMED_OUT, CRASHED = "returned", "raised", "timed out", "crashed"

# The longest message, in bytes.
MAX_MESSAGE = 256 << 20

# Most calls a worker gets at once. A worker that dies gives back those it had not begun.
_CHUNK = 16


def send(connection, message):
    """Sends plain JSON data. Raises OSError where the other side is gone."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection):
    """The next message of `send`.

    Raises EOFError or OSError where the other side is gone or its message is too long, ValueError
    or RecursionError where that is not JSON.
    """
    return json.loads(connection.recv_bytes(MAX_MESSAGE))


class _Worker:
    """A forked process that computes calls one after the other.

    Attributes:
        calls: The calls it holds, [ticket, arguments as JSON text]; it is computing the first.
        deadline: When the first must be done, in `time.monotonic()` seconds.
    """

    def __init__(self, fn, memory_bytes, cpu_s, unrelated):
        self.calls = collections.deque()
        self.deadline = None
        self.connection, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for connection in (*unrelated, self.connection):
                connection.close()  # else the other side's end would keep us, or others, alive
            _work(fn, memory_bytes, cpu_s, theirs)
        theirs.close()

    def kill(self):
        """Ends the process.

        Returns:
            The number of the signal that had ended it before, or 0.
        """
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status = os.waitpid(self.pid, 0)
        self.connection.close()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _work(fn, memory_bytes, cpu_s, connection):
    """Body of a worker; never returns."""
    # The kernel ends the process with this signal when a call has used up its processor time.
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
        os._exit(0)  # the supervisor is gone
    finally:
        os._exit(1)  # whatever else was raised (SystemExit, ...) must not unwind into its code


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
            except OSError:  # it died while idle: the end of its connection will tell
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
                ticket, outcome, result = receive(connection)
                if ticket != worker.calls[0][0]:
                    raise ValueError("an answer to another's call")
            except (EOFError, OSError, ValueError, LookupError, TypeError, RecursionError):
                replace(worker, CRASHED)  # dead, or no longer doing what it was made for
                continue
            worker.calls.popleft()
            worker.deadline = time.monotonic() + timeout_s
            send(parent, [ticket, outcome, result])
        now = time.monotonic()
        for worker in list(workers):
            if worker.calls and worker.deadline <= now and not worker.connection.poll():
                replace(worker, TIMED_OUT)


def main():
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
    gc.freeze()  # what is imported stays shared with the forked workers
    try:
        _supervise(parent, fn, *limits)
    except (EOFError, OSError):
        # The parent is gone. A worker that is computing would not notice: kill the whole session.
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
