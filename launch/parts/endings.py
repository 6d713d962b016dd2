"""How a program of `launch` ends: exit codes, signals, and trainings that stopped themselves.

| code | meaning |
|---|---|
| 0 | complete: every result is there |
| 75 | interrupted by a signal, and saved: run the same command again |
| 1 | a user's mistake, or a run that failed or stopped itself; one line says why |

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

from models.files import read_json, write_atomically

FAILED, RUN_AGAIN = 1, 75

# In the folder of a training that stopped itself: why, and its last good checkpoint.
STOPPED_FILE = "stopped.json"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ends the program; the same command goes on from what is on disk.

    Like `KeyboardInterrupt`, it passes handlers of `Exception`.
    """


class Stopped(Exception):
    """A training stopped itself, so there is no result; one line that says why."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why a training stopped itself.

    Attributes:
      step: updates taken until then.
      good_step: of its last good checkpoint; None where it had none.
    """

    reason: str
    step: int
    good_step: int | None

    def write(self, directory: Path) -> None:
        write_atomically(
            directory / STOPPED_FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        )

    def told(self, directory: Path, stage: str) -> str:
        """The stop in a line, with what can be done about it."""
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
    """How the training in a folder stopped itself; None where it did not.

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
        raise ValueError(f"{path} is damaged (its fields are others): {remedy}") from None


def handle_signals() -> None:
    """From now on SIGINT and SIGTERM raise `Interrupted`, and a second SIGINT ends the process.

    It does so at once, whatever the main thread is doing, with `RUN_AGAIN`: a half-written file
    never has the name of a whole one, and worker processes end with their parent. Where a training
    loop runs, `train.preemption` takes the first signal in place of this.
    """
    interrupted = False

    def interrupt(number, frame):
        nonlocal interrupted
        del frame
        if not interrupted:  # Once: what cleans up is not to be interrupted by a second SIGTERM.
            interrupted = True
            raise Interrupted(signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, interrupt)
    # Python runs handlers between two instructions of its main thread, which may compute in JAX for
    # long. The number of a signal is in this pipe at once.
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second_sigint, args=(receiver,), daemon=True).start()


def ignore_signals() -> None:
    """For a program that is complete: what comes while Python shuts down changes nothing."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_interrupted() -> NoReturn:
    """Ends the process with `RUN_AGAIN`, without Python's slow and talkative shutdown.

    Everything that saves has done so when `Interrupted` has passed it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(RUN_AGAIN)


def _end_at_second_sigint(receiver: int) -> None:
    received = 0
    while numbers := os.read(receiver, 64):
        received += numbers.count(signal.SIGINT)
        if received >= 2:
            with contextlib.suppress(OSError):
                if sys.stderr.isatty():
                    os.write(2, b"\x1b[?25h")  # A progress bar hides the cursor.
                os.write(2, b"\nended at a second SIGINT; the same command goes on from the last"
                         b" checkpoint\n")  # fmt: skip
            os._exit(RUN_AGAIN)
