"""Runs the sides of a comparison in turn, each in a process of its own, and takes their times.

Neither side's threads and memory disturb the other, and a drift of the machine's speed affects all
of them. The report names the processor, because a figure of one CPU says little about another.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# Tells a side's process which settings of malloc it has: "kept", those of `prepare_backend` and
# pages of 2 MiB, or "default". The module that makes the side reads the variable at its import.
ALLOCATOR = "BENCH_ALLOCATOR"
HUGE_PAGES = "glibc.malloc.hugetlb=1"


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
      make: prepares the side, given `arguments`, and returns what one turn runs.
      arguments: must be picklable.
      allocator: see `ALLOCATOR`.
    """

    make: Callable[..., Callable[[], Any]]
    arguments: Sequence[Any] = ()
    allocator: str = "kept"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of one side.

    Attributes:
      seconds: of each turn.
      first_seconds: from the start of the process to the end of its first turn, so with imports,
        weights and compilation.
      peak_gib: the most memory that the process held.
    """

    seconds: Sequence[float]
    first_seconds: float
    peak_gib: float

    @property
    def median(self) -> float:
        """The median seconds of a turn."""
        return statistics.median(self.seconds)


def _serve(connection, make: Callable, arguments: Sequence) -> None:
    """Is the main function of a side's process: answers each message with the seconds of a turn."""
    run = make(*arguments)
    while connection.recv():
        start = time.perf_counter()
        run()
        connection.send((time.perf_counter() - start, _peak_gib()))


def _peak_gib() -> float:
    """Returns the most memory that this process has held since its program began.

    `ru_maxrss` also counts what the parent held when it started this process.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            (held,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    except (OSError, ValueError):  # Not Linux.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(held) / 2**20


@contextlib.contextmanager
def _started(side: Side) -> Iterator[Callable[[], tuple[float, float]]]:
    """Starts a side's process and gives a function that runs a turn: seconds, and peak GiB."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    # The new process inherits these variables.
    os.environ[ALLOCATOR] = side.allocator
    os.environ["GLIBC_TUNABLES"] = HUGE_PAGES if side.allocator == "kept" else ""
    process = spawn.Process(target=_serve, args=(theirs, side.make, side.arguments), daemon=True)
    process.start()
    theirs.close()

    def turn() -> tuple[float, float]:
        try:
            ours.send(True)
            return ours.recv()
        except OSError as error:
            raise EOFError("the process of a side has ended; its traceback is above") from error

    try:
        yield turn
    finally:
        with contextlib.suppress(BrokenPipeError):
            ours.send(False)
        process.join()


def take_turns(rounds: int, sides: Mapping[str, Side], settle: bool = True) -> dict[str, Measured]:
    """Runs the sides in turn and measures each.

    In a round each side runs twice, and the second time counts. The first one follows a pause, in
    which a virtual machine may have given the memory that the side had freed back to its host; to
    get it again takes a second for some GiB. Training and serving have no such pauses.

    Args:
      rounds: rounds that count.
      sides: name -> side.
      settle: whether a round that does not count comes before them, and each side runs twice in a
        round. Turns of a minute and more need neither.

    Raises:
      EOFError: the process of a side has ended; its traceback is on stderr.
    """
    with contextlib.ExitStack() as stack:
        turns, first, peaks = {}, {}, {}
        for name, side in sides.items():
            start = time.perf_counter()
            turns[name] = stack.enter_context(_started(side))
            turns[name]()
            first[name] = time.perf_counter() - start
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds + settle):
            for name, turn in turns.items():
                if settle:
                    turn()
                seconds, peaks[name] = turn()
                if number >= settle:
                    times[name].append(seconds)
    return {name: Measured(each, first[name], peaks[name]) for name, each in times.items()}


def processor() -> str:
    """Returns the processor's name, family, model and number of cores, as the system tells them.

    Processors of one name may differ: on two machines named "AMD EPYC", the same training step ran
    at 3,952 and at 2,072 tokens a second (d = 512 in docs/results.md).
    """
    told: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            told.setdefault(key.strip(), value.strip())
    name = told.get("model name", "unknown processor")
    if "cpu family" in told:
        name += f" (family {told['cpu family']}, model {told.get('model', '?')})"
    return f"{name}, {os.cpu_count()} cores"
