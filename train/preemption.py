"""Ends a run cleanly on SIGINT, SIGTERM or the preemption of one machine of a job."""

import signal
import threading
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils


class Stopper:
    """Remembers SIGINT and SIGTERM while it is entered, so that they do not end the process.

    A second SIGINT interrupts at once. In a job of several processes the distributed runtime takes
    SIGTERM, and all processes stop after the same step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, say: Callable[[str], None]):
        self.signal_name: str | None = None
        self._say, self._previous = say, {}

    def __enter__(self) -> "Stopper":
        # Python allows handlers in the main thread only.
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stops_at(self, step: int) -> bool:
        """Tells whether to stop now; every process of a job must call it at every iteration."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal_name = "preempted"
        return self.signal_name is not None

    def _receive(self, number, frame):
        del frame
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        self._say(f"{self.signal_name}: saving and stopping after this step")
