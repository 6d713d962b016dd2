"""The local sandbox: a pool of zygotes (see `sandbox/zygote.py`), each tested for holes first."""

import atexit
import dataclasses
import functools
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning.code_runner import judging
from reasoning.code_runner.escapes import ESCAPES
from reasoning.code_runner.interface import ProgramRunner
from reasoning.code_runner.results import ExpressionResult, Limits, ProgramResult, TestResult
from reasoning.code_runner.sandbox import frames

# The strongest comes first; see sandbox/isolation.py. The first one needs root.
ISOLATIONS = ("namespaces", "user-namespaces", "landlock", "seccomp")

REMEDY = (
    "Run on Linux (x86-64 or aarch64), in a container with its default seccomp profile or none, or"
    " use a remote sandbox through RemoteCodeRunner; code never runs without a sandbox."
)
# These are all the environment variables that a program sees. The fixed hash seed gives sets the
# same order in every run. With few malloc arenas, threads fit into the limit on address space.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "2",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/scratch",
    "PATH": "/usr/bin:/bin",
}
_START_ZYGOTE = "from sandbox.zygote import main; main()"
_START_S = 60.0  # seconds that a zygote may take to start on a busy machine
_GRACE_S = 10.0  # seconds past the wall limit after which a zygote counts as lost


class SandboxUnavailable(RuntimeError):
    """This machine cannot isolate untrusted code; the message says why and what to do."""


class _WorkerLost(Exception):
    """The zygote died or does not answer."""


class _Worker:
    """One zygote, which runs one program at a time."""

    def __init__(self, isolation: str, limits: Limits):
        self.isolation = isolation
        self._limits = limits
        self._start()

    def _start(self):
        self._connection, theirs = socket.socketpair()
        # The interpreter may need this variable to find its own shared library.
        library_path = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
        config = {"isolation": self.isolation, "limits": dataclasses.asdict(self._limits)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-c", _START_ZYGOTE, json.dumps(config)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=os.path.dirname(__file__),
                env=_ENVIRONMENT | library_path,
                start_new_session=True,  # so that Ctrl-C reaches only this process
            )
        try:
            greeting = self._exchange(None, _START_S)
            if "error" in greeting:
                raise SandboxUnavailable(greeting["error"])
            self._probe()
        except _WorkerLost as lost:
            self.close()
            raise SandboxUnavailable(str(lost)) from None
        except BaseException:
            self.close()
            raise

    def _probe(self):
        """Tries to break out of the sandbox.

        Raises SandboxUnavailable if any attempt works, or if the program does not run at all.
        """
        with tempfile.TemporaryDirectory(prefix="code-runner-") as folder:
            os.chmod(folder, 0o755)  # so that only the sandbox can keep the program out
            canary = os.path.join(folder, "canary")
            with open(canary, "w") as file:
                file.write("canary")
            aims = {"canary": canary, "pid": os.getpid(), "memory_bytes": self._limits.memory_bytes}
            report = self.run("program", ESCAPES, stdin=json.dumps(aims), wall_s=_START_S)
            if report["status"] != "ok":
                stderr = report["stderr"].strip().rpartition("\n")[2]
                raise SandboxUnavailable(f"the escape test ended with {report['status']} {stderr}")
            escaped = report["stdout"].split()
            if os.listdir(folder) != ["canary"]:
                escaped.append("file_written")
        if escaped:
            raise SandboxUnavailable(f"a program could escape by: {', '.join(escaped)}")

    def run(
        self, kind: str, source: str, *, wall_s: float, stdin: str = "", calls: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """Runs one task; `Supervision` describes the fields and the report. Raises _WorkerLost."""
        task = {"kind": kind, "source": source, "stdin": stdin, "calls": calls, "wall_s": wall_s}
        return self._exchange(task, wall_s + _GRACE_S)

    def _exchange(self, message, timeout_s):
        try:
            self._connection.settimeout(timeout_s)
            if message is not None:
                frames.write(self._connection, message)
            reply = frames.read(self._connection)
        except OSError as error:
            raise _WorkerLost(f"the sandbox process does not answer ({error})") from None
        if reply is None:
            raise _WorkerLost("the sandbox process has died")
        return reply

    def restart(self) -> None:
        """Starts a new zygote in place of the old one."""
        self.close()
        self._start()

    def close(self) -> None:
        """Ends the zygote and the program that it runs."""
        # The supervisor notices this, kills the program and ends; the zygote then ends too.
        self._connection.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _first_worker(isolation: str, limits: Limits) -> _Worker:
    if sys.platform != "linux":
        raise SandboxUnavailable(f"untrusted code cannot be isolated on {sys.platform}. {REMEDY}")
    if isolation == "auto":
        candidates = ISOLATIONS if os.geteuid() == 0 else ISOLATIONS[1:]
    elif isolation in ISOLATIONS:
        candidates = [isolation]
    else:
        raise ValueError(f"isolation = {isolation!r}: give auto or one of {', '.join(ISOLATIONS)}.")
    failures = []
    for name in candidates:
        try:
            return _Worker(name, limits)
        except SandboxUnavailable as error:
            failures.append(f"{name}: {error}")
    raise SandboxUnavailable(
        f"untrusted code cannot be isolated here ({'; '.join(failures)}). {REMEDY}"
    )


class CodeRunner(ProgramRunner):
    """Runs programs in the local sandbox, each in a fresh process with a fresh scratch folder.

    Args:
      num_workers: the number of programs that run at the same time. Two for each core keep the
        cores busy.
      limits: what each program may use.
      isolation: "auto" takes the first of "namespaces" (needs root), "user-namespaces", "landlock"
        and "seccomp" that works here; a name allows only that one. Under "landlock" and "seccomp",
        programs have no scratch folder and no threads.

    Attributes:
      isolation: the name of the isolation in use.

    Raises:
      SandboxUnavailable: no isolation works here.
      ValueError: `isolation` is unknown or `num_workers` is below 1.
    """

    def __init__(self, num_workers: int = 4, limits: Limits = Limits(), isolation: str = "auto"):
        super().__init__(num_workers, limits)
        self._closed = False
        first = _first_worker(isolation, limits)
        self.isolation = first.isolation
        self._workers = [first, *(_Worker(self.isolation, limits) for _ in range(num_workers - 1))]
        self._idle = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def _run(self, kind, source, **inputs):
        worker = self._idle.get()
        try:
            if self._closed:
                raise RuntimeError("this CodeRunner is closed: create a new one.")
            report = worker.run(kind, source, wall_s=self.limits.wall_s, **inputs)
        except _WorkerLost as lost:
            if not self._closed:
                worker.restart()
            return ProgramResult("killed", "", str(lost), -9, 0.0), []
        finally:
            self._idle.put(worker)
        answers = report.pop("answers")
        return ProgramResult(**report), answers

    def run_program(self, source: str, *, stdin: str = "") -> ProgramResult:
        """Runs a program as `python program.py` would, with `stdin` as its standard input.

        Raises:
          RuntimeError: the runner is closed.
        """
        result, _ = self._run("program", source, stdin=stdin)
        return result

    def _ask(self, kind, source, requests):
        return self._run(kind, source, calls=requests)

    def close(self) -> None:
        """Ends the workers after the batches that still run. Later runs raise RuntimeError."""
        super().close()  # waits for the batches that still run
        self._closed = True
        for worker in self._workers:
            worker.close()


@functools.lru_cache(maxsize=4)
def _shared_runner(limits: Limits) -> CodeRunner:
    runner = CodeRunner(limits=limits)
    atexit.register(runner.close)
    return runner


def run_program(source: str, *, stdin: str = "", limits: Limits = Limits()) -> ProgramResult:
    """Runs `CodeRunner.run_program` on a shared runner with these limits."""
    return _shared_runner(limits).run_program(source, stdin=stdin)


def run_tests(
    source: str, tests: Sequence[judging.UnitTest], *, limits: Limits = Limits()
) -> TestResult:
    """Runs `CodeRunner.run_tests` on a shared runner with these limits."""
    return _shared_runner(limits).run_tests(source, tests)


def evaluate_expression(
    expression: str, variables: Mapping[str, Any], *, limits: Limits = Limits()
) -> ExpressionResult:
    """Runs `CodeRunner.evaluate_expression` on a shared runner with these limits."""
    return _shared_runner(limits).evaluate_expression(expression, variables)
