"""Decides how a program of `launch` ends: exit codes, signals, trainings that stop themselves.

| code | meaning |
|---|---|
| 0 | the run is complete: every result is there |
| 75 | a signal interrupted the run, which has saved its state: run the same command again |
| 1 | the user made a mistake, or the run failed or stopped itself; one line says why |

Nothing here imports JAX.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from models import processes
from models.files import read_json, write_atomically
from models.host.interruption import STOPS, Interrupted

__all__ = [
    "FAILED", "RUN_AGAIN", "STOPPED_FILE", "Interrupted", "Stop", "Stopped", "handle_signals",
    "ignore_signals", "leave_interrupted", "read_stop",
]  # fmt: skip

FAILED, RUN_AGAIN = 1, 75

# A training that stops itself writes this file into its folder: the reason, and its last good
# checkpoint.
STOPPED_FILE = "stopped.json"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A training stopped itself and has no result; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why a training stopped itself.

    Attributes:
      reason: the reason, in words.
      step: updates taken before the stop.
      good_step: step of the last good checkpoint; None if there is none.
    """

    reason: str
    step: int
    good_step: int | None

    def write(self, directory: Path) -> None:
        """Records the stop in the folder of its training."""
        write_atomically(
            directory / STOPPED_FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        )

    def message(self, directory: Path, stage: str) -> str:
        """Returns a line that tells the stop and what the user can do about it."""
        line = f"{directory} stopped at step {self.step} and has no result: {self.reason}."
        if self.good_step is None:
            return (
                f"{line} It had saved no checkpoint: change the config and give another --workdir"
                " (or remove that folder)"
            )
        return (
            f"{line} Its last good checkpoint is that of step {self.good_step}: to take it for the"
            f" result, add --accept_stopped={stage}; to train on from its latest one, remove"
            f" {directory / STOPPED_FILE}"
        )


def read_stop(directory: Path) -> Stop | None:
    """Reads how the training in a folder stopped itself; returns None if it did not.

    Raises:
      ValueError: the record is damaged.
    """
    path = directory / STOPPED_FILE
    if not path.exists():
        return None
    remedy = "remove it, and the training goes on from its latest checkpoint"
    found = read_json(path, remedy)
    try:
        return Stop(**found)
    except TypeError:
        raise ValueError(f"{path} is damaged (it has the wrong fields): {remedy}") from None


def handle_signals() -> None:
    """Makes SIGINT and SIGTERM raise `Interrupted`, and a second SIGINT end the process.

    The second SIGINT ends the process at once with `RUN_AGAIN`, whatever the main thread is doing.
    This is safe: a half-written file never has the name of a whole one, and worker processes end
    with their parent. During a training loop `train.preemption` takes the first signal instead.

    In a job of several processes a signal only asks the job to stop (`models.host.interruption`): a
    process that left alone would leave the others waiting for it.
    """
    interrupted = False

    def interrupt(number, frame):
        nonlocal interrupted
        del frame
        if processes.count() > 1:
            STOPS.ask(signal.Signals(number).name)
            return
        if not interrupted:  # Only once: a second SIGTERM must not interrupt the clean-up.
            interrupted = True
            raise Interrupted(signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, interrupt)
    # Python runs handlers between two instructions of its main thread, and that may be in JAX for a
    # long time. A signal's number arrives in this pipe at once.
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=(receiver,), daemon=True).start()


def ignore_signals() -> None:
    """Ignores signals from now on; for a program that is complete, while Python shuts down."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_interrupted() -> NoReturn:
    """Ends the process with `RUN_AGAIN`, without Python's slow and talkative shutdown.

    All state is saved by then, since `Interrupted` has passed every block that saves. The processes
    of a job wait for each other first, and process 0, whose coordinator the others need, leaves
    last.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if processes.count() > 1:
        import jax

        with contextlib.suppress(Exception):  # A process has gone already.
            jax.distributed.shutdown()
    os._exit(RUN_AGAIN)


def _hear(receiver: int) -> None:
    """Hears signals at once, whatever the main thread does."""
    received = 0
    while numbers := os.read(receiver, 64):
        for number in set(numbers) & set(_SIGNALS):
            if processes.count() > 1:
                STOPS.ask(signal.Signals(number).name)
        received += numbers.count(signal.SIGINT)
        if received >= 2:
            with contextlib.suppress(OSError):
                if sys.stderr.isatty():
                    os.write(2, b"\x1b[?25h")  # A progress bar hides the cursor.
                os.write(2, b"\nended at a second SIGINT; the same command goes on from the last"
                         b" checkpoint\n")  # fmt: skip
            os._exit(RUN_AGAIN)
