"""Runs programs in a remote sandbox over HTTP: SandboxFusion or Piston.

It has the interface of the local runner (`ProgramRunner`).
"""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from reasoning.code_runner.interface import ProgramRunner
from reasoning.code_runner.results import Limits, ProgramResult
from reasoning.code_runner.sandbox import harness
from reasoning.server_client.http_client import (
    DeadlineError,
    ExchangeError,
    HttpClient,
    Redactor,
    check_url,
)

_ATTEMPTS = 4  # how often a request is sent when the network or a busy server fails it
_HARNESS = pathlib.Path(harness.__file__).read_text(encoding="utf-8")
# The driver prints the answers as its last line. The program may print anything before that line,
# or forge the line: only the right value passes a test.
_DRIVER = """
replies = []
serve({kind!r}, {source!r}, [json.loads({request!r})], replies.append)
print("\\n" + json.dumps(replies), flush=True)
"""


class RemoteSandboxError(RuntimeError):
    """The remote sandbox did not run the program; the message names the server and says why."""


@dataclasses.dataclass(frozen=True)
class _SandboxFusion:
    """The protocol of https://github.com/bytedance/SandboxFusion."""

    path = "/run_code"

    def request(self, source: str, stdin: str, limits: Limits) -> dict[str, Any]:
        return {
            "language": "python",
            "code": source,
            "stdin": stdin,
            "run_timeout": limits.wall_s,
            "memory_limit_MB": limits.memory_bytes >> 20,
        }

    def result(self, response: Mapping[str, Any], wall_s: float) -> ProgramResult:
        run = response.get("run_result")
        if response["status"] == "SandboxError" or run is None:
            raise RemoteSandboxError(
                f"the server made no run: {response.get('message') or response['status']}"
            )
        status = "timeout" if run["status"] == "TimeLimitExceeded" else None
        return _result(
            status,
            run["return_code"],
            run["stdout"],
            run["stderr"],
            run.get("execution_time") or wall_s,
        )


@dataclasses.dataclass(frozen=True)
class _Piston:
    """The protocol of https://github.com/engineer-man/piston, API version 2."""

    path = "/api/v2/execute"

    def request(self, source: str, stdin: str, limits: Limits) -> dict[str, Any]:
        return {
            "language": "python",
            "version": "3",
            "files": [{"name": "program.py", "content": source}],
            "stdin": stdin,
            "run_timeout": round(1000 * limits.wall_s),
            "run_memory_limit": limits.memory_bytes,
        }

    def result(self, response: Mapping[str, Any], wall_s: float) -> ProgramResult:
        run = response["run"]
        # Newer servers send these status letters; older ones only name the signal.
        status = {"TO": "timeout", "OL": "output", "EL": "output"}.get(run.get("status"))
        if run.get("signal"):
            status = status or "killed"
        return _result(status, run["code"], run["stdout"], run["stderr"], wall_s)


SERVICES = {"sandbox_fusion": _SandboxFusion(), "piston": _Piston()}


def _result(status, exit_code, stdout, stderr, wall_s):
    """Builds a result from the server's fields.

    Raises ValueError if a field has a wrong type.
    """
    exit_code = -9 if exit_code is None else exit_code
    texts_are_right = isinstance(stdout, str) and isinstance(stderr, str)
    if not texts_are_right or type(exit_code) is not int or not _is_duration(wall_s):
        raise ValueError("a field of the result has a wrong type")
    if status is None:
        status = "ok" if exit_code == 0 else "killed" if exit_code < 0 else "error"
        if status == "error" and stderr.rstrip().rpartition("\n")[2].startswith("MemoryError"):
            status = "memory"
    return ProgramResult(status, stdout, stderr, exit_code, wall_s)


def _is_duration(seconds):
    return type(seconds) in (int, float) and 0 <= seconds < math.inf


class RemoteCodeRunner(ProgramRunner):
    """Runs programs on a SandboxFusion or Piston server. The server has to isolate them.

    Each call or expression of a test is a run of its own. If one gives no answer, the remaining
    ones count as failed.

    Args:
      url: the server, such as "http://sandbox:8080".
      service: "sandbox_fusion" or "piston".
      num_workers: the number of requests that a batch sends at the same time.
      limits: the server is asked to keep wall_s and memory_bytes; output_bytes is enforced here;
        the server sets the other limits itself.
      queue_s: seconds that a request may wait at the server before it runs. queue_s and wall_s
        together are the deadline of one attempt, from the address look-up to the last byte.
      headers: HTTP headers to send, such as Authorization. They go only to this server, and their
        values appear in no message.

    Raises:
      ValueError: the service is unknown or the address is not valid.

    The methods raise RemoteSandboxError if the server does not answer after a few attempts, or if
    its answer is not one of such a server.
    """

    def __init__(
        self,
        url: str,
        service: str = "sandbox_fusion",
        num_workers: int = 8,
        limits: Limits = Limits(),
        queue_s: float = 30.0,
        headers: Mapping[str, str] = {},
    ):
        if service not in SERVICES:
            raise ValueError(f"service = {service!r}: give one of {', '.join(SERVICES)}.")
        check_url(url, "url =")
        super().__init__(num_workers, limits)
        self._service = SERVICES[service]
        self._url = url.rstrip("/") + self._service.path
        self._queue_s = queue_s
        self._http = HttpClient({"Content-Type": "application/json", **headers})
        # "Bearer KEY" is a secret, and so is KEY; a value of a few letters is not.
        parts = {part for value in headers.values() for part in (value, value.rpartition(" ")[2])}
        self._redactor = Redactor(part for part in parts if len(part) >= 8)

    def run_program(self, source: str, *, stdin: str = "") -> ProgramResult:
        """Runs a program on the server, with `stdin` as its standard input.

        Raises:
          RemoteSandboxError: the server did not run it.
        """
        body = json.dumps(self._service.request(source, stdin, self.limits)).encode()
        started = time.monotonic()
        text = self._post(body)
        wall_s = time.monotonic() - started
        if text is None:
            return ProgramResult("output", "", "", -9, wall_s)
        try:
            result = self._service.result(json.loads(text), wall_s)
        except RemoteSandboxError as error:
            raise RemoteSandboxError(f"{self._url}: {self._redactor.line(error)}") from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise RemoteSandboxError(
                f"{self._url}: this is no answer of such a server: {self._redactor.line(text)!r}."
                " Check url and service."
            ) from None
        if len(result.stdout) + len(result.stderr) > self.limits.output_bytes:
            result = dataclasses.replace(result, status="output")
        return result

    def _post(self, body):
        """Returns the text of the answer, or None if it is longer than output within the limits."""
        timeout_s = self.limits.wall_s + self._queue_s
        # JSON escapes make the output longer, and the answer has fields of its own.
        longest = 8 * self.limits.output_bytes + (1 << 16)
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.25 * 2**attempt)
            try:
                reply = self._http.exchange(
                    "POST", self._url, body, timeout_s=timeout_s, longest=longest
                )
            except DeadlineError as error:
                failure = f"timed out: {error}"
                continue
            except ExchangeError as error:
                failure = self._redactor.line(error)
                continue
            if 200 <= reply.status < 300:
                return None if reply.is_cut else reply.body.decode("utf-8", "replace")
            failure = f"HTTP {reply.status}: {self._redactor.line(reply.body or reply.reason)!r}"
            if reply.status != 429 and reply.status < 500:
                break
        raise RemoteSandboxError(
            f"{self._url}: {failure}. Check that the server runs and that service names its kind."
        )

    def _ask(self, kind, source, requests):
        answers = []
        for request in requests:
            driver = _HARNESS + _DRIVER.format(
                kind=kind, source=source, request=json.dumps(request)
            )
            result = self.run_program(driver)
            replies = _last_line_as_list(result.stdout)
            if not answers:
                answers += replies[:1]
            if len(replies) != 2:
                break
            answers.append(replies[1])
        return result, answers


def _last_line_as_list(stdout):
    try:
        replies = json.loads(stdout.rstrip("\n").rpartition("\n")[2])
    except (ValueError, RecursionError):
        return []
    return (
        replies
        if isinstance(replies, list) and all(isinstance(reply, str) for reply in replies)
        else []
    )
