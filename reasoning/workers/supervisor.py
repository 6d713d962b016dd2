"""The program behind `reasoning.workers`: forks workers, watches their time, replaces the dead.

It runs in an interpreter of its own, with one thread and without JAX, so that forking is safe. Its
imports are few because it is started as a plain file, before `sys.path` is set.
"""

import collections
import gc
import importlib
import multiprocessing.connection
import os
import pickle
import resource
import signal
import sys
import time
import traceback

# How a call ended.
RETURNED, RAISED, TIMED_OUT, CRASHED = "returned", "raised", "timed out", "crashed"

# Most calls a worker gets at once. A worker that dies gives back those it had not begun.
_CHUNK = 16


class _Worker:
    """A forked process that computes calls one after the other.

    Attributes:
        calls: The calls it holds, (ticket, payload); it is computing the first.
        deadline: When the first must be done, in `time.monotonic()` seconds.
    """

    def __init__(self, fn, memory_bytes, unrelated):
        self.calls = collections.deque()
        self.deadline = None
        self.connection, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for connection in (*unrelated, self.connection):
                connection.close()  # else the other side's end would keep us, or others, alive
            _work(fn, memory_bytes, theirs)
        theirs.close()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.connection.close()


def _work(fn, memory_bytes, connection):
    """Body of a worker; never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        while True:
            for ticket, payload in connection.recv():
                try:
                    result = RETURNED, pickle.dumps(fn(*pickle.loads(payload)))
                except MemoryError:
                    os._exit(1)
                except Exception:
                    result = RAISED, traceback.format_exc()
                connection.send((ticket, *result))
    except (EOFError, OSError):
        os._exit(0)  # the supervisor is gone
    finally:
        os._exit(1)  # whatever else was raised (SystemExit, ...) must not unwind into its code


def _supervise(parent, fn, num_workers, timeout_s, memory_bytes):
    """Serves calls until the parent closes the connection."""
    queue = collections.deque()
    workers = []

    def start_worker():
        workers.append(_Worker(fn, memory_bytes, [parent, *(w.connection for w in workers)]))

    def give_work(worker):
        share = max(1, min(_CHUNK, len(queue) // (4 * num_workers)))
        calls = [queue.popleft() for _ in range(min(share, len(queue)))]
        if calls:
            worker.calls.extend(calls)
            worker.deadline = time.monotonic() + timeout_s
            try:
                worker.connection.send(calls)
            except OSError:  # it died while idle: the end of its connection will tell
                pass

    def replace(worker, outcome):
        worker.kill()
        workers.remove(worker)
        if worker.calls:
            ticket, _ = worker.calls.popleft()
            queue.extendleft(reversed(worker.calls))
            parent.send((ticket, outcome, None))
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
                queue.extend(parent.recv())
                continue
            worker = by_connection[connection]
            try:
                message = connection.recv_bytes()
            except (EOFError, OSError):
                replace(worker, CRASHED)
                continue
            worker.calls.popleft()
            worker.deadline = time.monotonic() + timeout_s
            parent.send_bytes(message)
        now = time.monotonic()
        for worker in list(workers):
            if worker.calls and worker.deadline <= now and not worker.connection.poll():
                replace(worker, TIMED_OUT)


def main():
    parent = multiprocessing.connection.Connection(int(sys.argv[1]))
    path, module, name, warm_up, *limits = parent.recv()
    sys.path[:] = path
    try:
        fn = getattr(importlib.import_module(module), name)
        if warm_up is not None:
            fn(*warm_up)
    except Exception:
        parent.send((None, RAISED, traceback.format_exc()))
        raise
    gc.freeze()  # what is imported stays shared with the forked workers
    try:
        _supervise(parent, fn, *limits)
    except (EOFError, OSError):
        # The parent is gone. A worker that is computing would not notice: kill the whole session.
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
