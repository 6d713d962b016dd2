"""What a run is allowed, and what came of it."""

import dataclasses
from typing import Any, Literal

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use from start to end, enforced by the kernel or from outside it.

    A program is always one process: it cannot start others.

    Attributes:
      wall_s: seconds on the clock. Generous beside cpu_s, so that a busy machine does not fail a
        good program.
      cpu_s: whole seconds of CPU time, over all threads.
      memory_bytes: address space, the interpreter's own ~30 MB included.
      output_bytes: standard output, standard error and answers together.
      scratch_bytes: all files in the scratch folder together.
      threads: threads at a time, the first included.
      open_files: open descriptors at a time.
    """

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_bytes: int = 512 << 20
    output_bytes: int = 1 << 20
    scratch_bytes: int = 16 << 20
    threads: int = 16
    open_files: int = 64

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if (
                not isinstance(value, (int, float) if field.type is float else int)
                or isinstance(value, bool)
                or value <= 0
            ):
                wanted = "number" if field.type is float else "whole number"
                raise ValueError(f"Limits.{field.name} = {value!r}: give a positive {wanted}.")


@dataclasses.dataclass(frozen=True)
class ProgramResult:
    """One run of a program.

    Attributes:
      status: "ok" (ended with exit code 0), "error" (another exit code), or the limit that ended
        it: "timeout" (wall or CPU time), "memory" (an uncaught MemoryError), "output"; "killed"
        when a signal or a crash ended it.
      stdout, stderr: text, cut at the limit; bytes that are not UTF-8 are replaced.
      exit_code: the program's; negative for a signal's number.
      wall_s: seconds from handing over the source to the end.
    """

    status: Status
    stdout: str
    stderr: str
    exit_code: int
    wall_s: float


@dataclasses.dataclass(frozen=True)
class TestResult:
    """How many unit tests a program passed, and in words why it failed the first it failed."""

    __test__ = False  # not a test case for pytest

    passed: int
    total: int
    reason: str

    @property
    def all_passed(self) -> bool:
        return self.passed == self.total


@dataclasses.dataclass(frozen=True)
class ExpressionResult:
    """An expression's value, which is plain data; or `ok` is False and the reason says why.

    A value of more than about 10,000 characters is refused: a stranger wrote it, and to build a
    large one can take quadratic time.
    """

    ok: bool
    value: Any
    reason: str
