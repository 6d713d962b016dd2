"""Sends one program its input, collects its output, and ends it at the first limit it reaches."""

import collections
import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Any

CHUNK = 1 << 16


class Child:
    """The process of the program, and this side's ends of its five pipes."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int, requests: int, answers: int):
        self.pid = pid
        self.exited = os.pidfd_open(pid)  # readable once the process has ended
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.requests, self.answers = requests, answers

    def end(self) -> tuple[int, float]:
        """Kills the process if it still runs.

        Returns its exit code (if negative, the signal that ended it) and the CPU seconds that it
        used.
        """
        signal.pidfd_send_signal(self.exited, signal.SIGKILL)
        _, wait_status, usage = os.wait4(self.pid, 0)
        return os.waitstatus_to_exitcode(wait_status), usage.ru_utime + usage.ru_stime


class _Stop(Exception):
    """Ends the run; the argument is its status."""


class Supervision:
    """One run of one program.

    Args:
      child: the process of the program. It waits on `requests` for a line with the kind of run and
        the source.
      task: a dict of kind ("program", "calls" or "expressions", see harness.py), source, stdin
        (text), calls (the requests) and wall_s (the time limit in seconds).
      limits: the dict of the fields of `Limits`.
      client: the descriptor of the process that wants the result; the run is over when it closes.
    """

    def __init__(
        self, child: Child, task: Mapping[str, Any], limits: Mapping[str, Any], client: int
    ):
        self._child, self._limits, self._client = child, limits, client
        self._wall_s = task["wall_s"]
        self._poller = select.poll()
        self._unsent: dict[int, memoryview] = {}
        self._received = {fd: bytearray() for fd in (child.stdout, child.stderr, child.answers)}
        self._num_received = 0
        self._calls = collections.deque(task["calls"])
        self._answers: list[str] = []
        self._num_asked = 1  # the first answer is for loading the program
        self._exit_is_success = task["kind"] == "program"
        for fd in (*self._received, child.exited, client):
            self._poller.register(fd, select.POLLIN)
        for fd in (*self._received, child.stdin, child.requests):
            os.set_blocking(fd, False)
        self._queue(child.stdin, task["stdin"].encode("utf-8", "surrogatepass"))
        self._ask({"kind": task["kind"], "source": task["source"]})

    def run(self) -> dict[str, Any]:
        """Runs the program to its end.

        Returns a dict of the fields of `ProgramResult` and of answers (lines; the first is for
        loading).
        """
        started = time.monotonic()
        status = None
        try:
            self._relay(started + self._wall_s)
        except _Stop as stop:
            (status,) = stop.args
        exit_code, cpu_s = self._child.end()
        cap = self._limits["output_bytes"]
        stdout, stderr = (
            self._received[fd][:cap].decode("utf-8", "replace")
            for fd in (self._child.stdout, self._child.stderr)
        )
        return {
            "status": status or self._status(exit_code, cpu_s, stderr),
            "exit_code": exit_code,
            "stdout": stdout,
            "stderr": stderr,
            "wall_s": time.monotonic() - started,
            "answers": self._answers,
        }

    def _status(self, exit_code, cpu_s, stderr):
        if exit_code < 0:
            # The kernel counts CPU time towards the limit in ticks, which is less exact.
            return "timeout" if cpu_s > 0.5 * self._limits["cpu_s"] else "killed"
        if exit_code == 0 and self._exit_is_success:
            return "ok"
        last_line = stderr.rstrip().rpartition("\n")[2]
        return "memory" if last_line.startswith("MemoryError") else "error"

    def _relay(self, deadline):
        exited = False
        while not exited:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise _Stop("timeout")
            for fd, _ in self._poller.poll(remaining_s * 1000 + 1):
                if fd == self._client:
                    # The client sends nothing while a program runs, so it has closed. The program
                    # ends with this process.
                    os._exit(0)
                elif fd == self._child.exited:
                    exited = True
                elif fd in self._unsent:
                    self._send(fd)
                elif not self._receive(fd):
                    self._poller.unregister(fd)
        for fd in self._received:
            with contextlib.suppress(BlockingIOError):
                while self._receive(fd):
                    pass

    def _queue(self, fd, data):
        self._unsent[fd] = memoryview(data)
        self._poller.register(fd, select.POLLOUT)

    def _send(self, fd):
        data = self._unsent[fd]
        try:
            data = data[os.write(fd, data[:CHUNK]) :] if data else data
        except BlockingIOError:
            pass
        except BrokenPipeError:
            data = data[:0]  # the program does not read its input
        self._unsent[fd] = data
        if not data:
            self._poller.unregister(fd)
            del self._unsent[fd]
            if fd == self._child.stdin:
                os.close(fd)

    def _receive(self, fd):
        """Reads the data that are there. Returns False if none will follow.

        Raises BlockingIOError if more may follow later.
        """
        data = os.read(fd, CHUNK)
        self._received[fd] += data
        self._num_received += len(data)
        if self._num_received > self._limits["output_bytes"]:
            raise _Stop("output")
        if fd == self._child.answers:
            if b"\n" in data:  # else each byte of a slow writer would copy all that came before
                self._take_answers()
        return bool(data)

    def _ask(self, request):
        self._queue(self._child.requests, json.dumps(request).encode() + b"\n")

    def _take_answers(self):
        *lines, rest = self._received[self._child.answers].split(b"\n")
        self._received[self._child.answers] = rest
        for line in lines:
            if len(self._answers) == self._num_asked:
                self._answers.clear()
                raise _Stop("error")  # the program sent an answer without a request
            self._answers.append(line.decode("utf-8", "replace"))
        if len(self._answers) == self._num_asked:
            if not self._calls:
                raise _Stop("ok")
            self._num_asked += 1
            self._ask(self._calls.popleft())
