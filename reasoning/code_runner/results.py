"""Defines what a run may use (`Limits`) and how it ended (`ProgramResult` and the like)."""

import dataclasses
from typing import Any, Literal

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use from start to end. The kernel or the supervisor enforces it.

    A program is always a single process: it cannot start others.

    Attributes:
      wall_s: seconds on the clock. The default is far above cpu_s, so that a busy machine does not
        fail a good program.
      cpu_s: whole seconds of CPU time, summed over all threads.
      memory_bytes: address space, which includes about 30 MB of the interpreter itself.
      output_bytes: standard output, standard error and answers together.
      scratch_bytes: all files in the scratch folder together.
      threads: the number of threads at a time, the first one included.
      open_files: the number of open descriptors at a time.

    Raises:
      ValueError: a limit is not a positive number of its type.
    """

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_bytes: int = 512 << 20
    output_bytes: int = 1 << 20
    scratch_bytes: int = 16 << 20
    threads: int = 16
    open_files: int = 64

    def __post_init__(self) -> None:
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
    """How one run of a program ended and what it wrote.

    Attributes:
      status: "ok" (exit code 0), "error" (another exit code), or the limit that ended the run:
        "timeout" (wall or CPU time), "memory" (an uncaught MemoryError), "output"; "killed" if a
        signal or a crash ended it.
      stdout, stderr: text, cut at the limit; bytes that are not UTF-8 are replaced.
      exit_code: the exit code of the program; a negative one is the number of a signal.
      wall_s: seconds from the arrival of the source to the end.
    """

    status: Status
    stdout: str
    stderr: str
    exit_code: int
    wall_s: float


@dataclasses.dataclass(frozen=True)
class TestResult:
    """How many unit tests a program passed. The reason says why the first failed test failed."""

    __test__ = False  # so that pytest does not take this class for a test case

    passed: int
    total: int
    reason: str

    @property
    def all_passed(self) -> bool:
        """Says whether the program passed every test."""
        return self.passed == self.total


@dataclasses.dataclass(frozen=True)
class ExpressionResult:
    """The value of an expression, which is plain data, or the reason why there is none.

    `ok` says which of the two it is. A value whose text has more than about 10,000 characters is
    refused: the text is untrusted, and rebuilding a large value can take quadratic time.
    """

    ok: bool
    value: Any
    reason: str
