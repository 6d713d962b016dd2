"""Ends a training cleanly on SIGINT, SIGTERM or the preemption of one machine of a job."""

import signal
import threading
from collections.abc import Callable

from models import processes
from models.host.interruption import GRACE_SECONDS, STOPS


class Stopper:
    """Takes SIGINT and SIGTERM while it is entered, so that they do not end the process.

    They only say that the training is to stop; `models.host.interruption` says where all processes
    of the job do so. In a job of one process a second SIGINT interrupts at once.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, say: Callable[[str], None]):
        self._say, self._previous = say, {}
        self._ended_with: str | None = None

    def __enter__(self) -> "Stopper":
        STOPS.forget()
        STOPS.watch(GRACE_SECONDS, self._say)
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._ended_with = STOPS.reason
        STOPS.forget()

    @property
    def signal_name(self) -> str | None:
        """Returns the signal that this process, or another of the job, has got; or None.

        It keeps its value after the stopper is left.
        """
        return self._ended_with or STOPS.reason

    def stops_here(self) -> bool:
        """Tells whether to stop now; every process of a job must call it at the same places."""
        return STOPS.here()

    def _receive(self, number, frame):
        del frame
        several = processes.count() > 1
        if self.signal_name is not None and number == signal.SIGINT and not several:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        STOPS.ask(name)
        if not several:
            self._say(f"{name}: saving and stopping as soon as possible")
