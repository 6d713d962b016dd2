"""Brings the wish to stop, a signal to one process, to all processes of a job at the same point.

A job of several processes must not stop anywhere: a process that leaves while the others wait for
it in a collective operation leaves them waiting. So programs mark points where they may stop, in
the same order in every process: `Stops.here()` before each step of a training and between two
stretches of sampling. The processes agree as follows, by the key-value store of JAX's coordinator:

1. A process that gets a signal writes the reason into the store (`ask`).
2. A thread in every process looks for that entry. It then publishes how many points its process
   has passed, and from then on the process waits at its next point for the decision.
3. The thread of process 0 collects these numbers. All processes stop at the first point after the
   largest of them: nobody has passed it yet, and everybody will reach it.

None of this looks at the devices, so it works while a program runs on them. With one process, the
first point after the signal is the one.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from models import processes

# Seconds from the signal to the hard end of a job of several processes, unless the user says
# another number: a little less than the 30 that Kubernetes, Slurm and spot machines give.
GRACE_SECONDS = 25.0

_PREFIX = "ergo/stop"
# Seconds between two looks into the store: a thousand processes ask it a thousand times a second.
SECONDS_BETWEEN_LOOKS = 1.0
# How long one request for an entry that is about to come may wait.
_PATIENCE_MS = 5_000
# Seconds that process 0, which runs the store, lets the others leave before it.
_SECONDS_AHEAD = 2.0


class Interrupted(KeyboardInterrupt):
    """A signal ends the program; the same command continues from the files on disk.

    Handlers of `Exception` do not catch it, as with `KeyboardInterrupt`.
    """


class Stops:
    """The points of this process where the job may stop, and the wish to stop.

    Attributes:
      reason: why the job is to stop, such as the name of a signal; None if it goes on.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._thread = threading.main_thread()
        self._lock = threading.Lock()
        self._passed = 0
        self._stop_at: int | None = None
        self._decided = threading.Event()
        self._store: Any = None
        self._closed = threading.Event()

    def ask(self, reason: str) -> None:
        """Asks the job to stop; signal handlers and threads may call it, and more than once."""
        if self._store is None:
            self.reason = self.reason or reason
        else:
            # A handler must not wait for the network.
            threading.Thread(target=self._publish, args=(reason,), daemon=True).start()

    def here(self) -> bool:
        """Marks a point where the job may stop, and tells whether it stops here.

        Only the main thread marks points: those of other threads have no order.
        """
        if threading.current_thread() is not self._thread:
            return False
        if self._store is None:
            return self.reason is not None
        with self._lock:
            if self.reason is None:
                self._passed += 1
                return False
        self._decided.wait()
        assert self._stop_at is not None
        if self._passed + 1 >= self._stop_at:
            return True
        self._passed += 1
        return False

    def forget(self) -> None:
        """Forgets the wish to stop, in a job of one process whose training has answered it."""
        if self._store is None:
            self.reason = None

    def watch(self, grace: float, say: Callable[[str], None]) -> None:
        """Lets this process take part in a job of several; call it once, in every process.

        Args:
          grace: seconds from the wish to stop to the hard end of the process. After so long it ends
            with exit code 75 wherever it is, and the last checkpoint counts.
          say: gets a line when the job is to stop.
        """
        if self._store is not None or processes.count() == 1:
            return
        # The interface of JAX's own modules to the store; there is no public one.
        self._store = sys.modules["jax"]._src.distributed.global_state.client
        follower = threading.Thread(
            target=self._follow, args=(grace, say), daemon=True, name="stops"
        )
        follower.start()

        def close() -> None:
            self._closed.set()
            follower.join(2 * _PATIENCE_MS / 1000)

        # Python aborts where it ends while a thread is in a request to the store.
        atexit.register(close)

    def _publish(self, reason: str) -> None:
        try:
            self._store.key_value_set(f"{_PREFIX}/reason", reason)
        except Exception:  # Another process was first, or the coordinator has gone.
            return

    def _follow(self, grace: float, say: Callable[[str], None]) -> None:
        try:
            reason = None
            while reason is None:
                if self._closed.wait(SECONDS_BETWEEN_LOOKS):
                    return
                reason = self._look_for("reason")
            with self._lock:
                self.reason = reason
                passed = self._passed
            threading.Thread(target=end, args=(grace,), daemon=True).start()
            say(f"{reason}: stopping all processes, within {grace:g} s")
            me, main = processes.index(), processes.is_main()
            self._store.key_value_set(f"{_PREFIX}/passed/{me}", str(passed))
            if main:
                every = [self._wait_for(f"passed/{i}") for i in range(processes.count())]
                self._store.key_value_set(f"{_PREFIX}/at", str(max(map(int, every)) + 1))
            self._stop_at = int(self._wait_for("at"))
            self._decided.set()
        except Exception as error:  # The job has ended, or its coordinator is gone.
            if self.reason is not None:
                print(f"the processes could not agree where to stop: {error}", file=sys.stderr)

    def _look_for(self, key: str) -> str | None:
        try:
            return self._store.key_value_try_get(f"{_PREFIX}/{key}")
        except Exception as error:
            if "NOT_FOUND" not in str(error):
                raise
            return None

    def _wait_for(self, key: str) -> str:
        while True:
            try:
                return self._store.blocking_key_value_get(f"{_PREFIX}/{key}", _PATIENCE_MS)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise


def end(seconds: float) -> NoReturn:
    """Ends this process hard after some seconds, with exit code 75: the last checkpoint counts.

    Process 0 ends a moment after the others, since it runs the store.
    """
    time.sleep(seconds)
    print("ended at once: the last checkpoint counts", file=sys.stderr, flush=True)
    if processes.is_main():
        time.sleep(_SECONDS_AHEAD)
    os._exit(75)


# Signals concern the whole process, and so does this.
STOPS = Stops()
