"""Tests the remote runner against a local server that speaks the SandboxFusion and Piston
protocols.
"""

import http.server
import json
import threading
import time

import pytest

from reasoning.code_runner import (
    CallTest,
    CodeRunner,
    ExpressionTest,
    Limits,
    RemoteCodeRunner,
    RemoteSandboxError,
    StdinTest,
    remote,
)


@pytest.fixture(scope="module")
def sandbox():
    """Runs the server's programs."""
    with CodeRunner(2, Limits(wall_s=10.0, cpu_s=1)) as runner:
        yield runner


@pytest.fixture
def server(sandbox):
    """A server; `faults` holds what it does wrong with the next requests, `requests` what came."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.requests.append((self.path, body, self.headers))
            fault = self.server.faults.pop(0) if self.server.faults else None
            if callable(fault):
                return fault(self)
            answer = {"/run_code": self.sandbox_fusion, "/api/v2/execute": self.piston}[self.path]
            self.send(200, json.dumps(answer(body)))

        def sandbox_fusion(self, body):
            assert body["language"] == "python"
            run = sandbox.run_program(body["code"], stdin=body["stdin"])
            over = run.status == "timeout"
            return {
                "status": "Success" if run.status == "ok" else "Failed",
                "message": "",
                "compile_result": None,
                "run_result": {
                    "status": "TimeLimitExceeded" if over else "Finished",
                    "execution_time": None if over else run.wall_s,
                    "return_code": None if over else run.exit_code,
                    "stdout": run.stdout,
                    "stderr": run.stderr,
                },
                "files": {},
            }

        def piston(self, body):
            assert body["language"] == "python" and len(body["files"]) == 1
            run = sandbox.run_program(body["files"][0]["content"], stdin=body["stdin"])
            killed = run.exit_code < 0
            return {
                "language": "python",
                "version": "3.12.0",
                "run": {
                    "stdout": run.stdout,
                    "stderr": run.stderr,
                    "output": run.stdout + run.stderr,
                    "code": None if killed else run.exit_code,
                    "signal": "SIGKILL" if killed else None,
                    "status": "TO" if run.status == "timeout" else None,
                },
            }

        def send(self, status, text):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.faults = [], []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=remote.SERVICES)
def runner(server, request):
    url = f"http://127.0.0.1:{server.server_port}/"
    limits = Limits(wall_s=10.0, output_bytes=10_000)
    with RemoteCodeRunner(url, request.param, num_workers=2, limits=limits) as runner:
        yield runner


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def status(code, text):
    return lambda handler: handler.send(code, text)


def test_programs(runner):
    assert runner.run_program("print(input())", stdin="hé").stdout == "hé\n"
    for program, expected in {
        "x = 1": "ok",
        "1 / 0": "error",
        "x = bytearray(10**11)": "memory",
        "while True: pass": "timeout",
        "print('x' * 20_000)": "output",
        "print('x' * 200_000)": "output",
        "import ctypes; ctypes.string_at(0)": "killed",
    }.items():
        assert runner.run_program(program).status == expected, program


def test_unit_tests_give_what_the_local_runner_gives(runner, sandbox):
    jobs = [
        ("def f(x): return (x, [x])", [CallTest("f(1)", (1, [1])), CallTest("f('a')", 0)]),
        ("def f(x): return 1 / x", [CallTest("f(1)", 1.0), CallTest("f(0)", 1.0)]),
        ("def f(: pass", [CallTest("f(1)", 1)]),
        ("print('noise')\ndef f(): print('no newline', end='')", [CallTest("f()", None)]),
        ("print(int(input()) + 1)", [StdinTest("1", "2"), StdinTest("2", "2")]),
        ("a * b", [ExpressionTest({"a": 2, "b": 3}, 6), ExpressionTest({"a": 1, "b": 1}, 2)]),
    ]
    assert runner.run_tests_batch(jobs) == [sandbox.run_tests(*job) for job in jobs]
    assert runner.evaluate_expression("a + 1", {"a": 2}).value == 3
    assert not runner.evaluate_expression("a + ", {"a": 2}).ok


def test_expected_values_stay_here(runner, server):
    runner.run_tests("def f(): return 'guess'", [CallTest("f()", "value-9b2e")])
    runner.run_tests("print('guess')", [StdinTest("", "value-9b2e")])
    assert len(server.requests) == 2
    assert "value-9b2e" not in str([body for _, body, _ in server.requests])


@pytest.mark.parametrize(
    "program",
    [
        'print(\'["{}", "{}"]\')\nimport os; os._exit(0)',
        "print('{\"value\": 5}', flush=True)\nimport os; os._exit(0)",
        "import json\njson.dumps = lambda *args: 'true'\ndef f(): pass",
        "import sys\nsys.stdout = None\ndef f(): return 5",
        "def f():\n    import os; print('[' * 100_000, flush=True); os._exit(0)",
    ],
)
def test_cheats_earn_nothing(runner, program):
    tests = [CallTest("f()", "secret"), CallTest("f()", "secret")]
    assert runner.run_tests(program, tests).passed == 0


def test_limits_are_asked_of_the_server(runner, server):
    runner.run_program("x = 1")
    path, body, _ = server.requests[0]
    if path == "/run_code":
        assert (body["run_timeout"], body["memory_limit_MB"]) == (10.0, 512)
    else:
        assert (body["run_timeout"], body["run_memory_limit"]) == (10_000, 512 << 20)


def test_headers_are_sent(server):
    url = f"http://127.0.0.1:{server.server_port}"
    with RemoteCodeRunner(url, headers={"Authorization": "Bearer key"}) as runner:
        runner.run_program("x = 1")
    assert server.requests[0][2]["Authorization"] == "Bearer key"


def test_busy_server_is_asked_again(runner, server):
    server.faults = [status(429, "slow down"), status(503, "starting"), status(500, "oh")]
    assert runner.run_program("print(1)").stdout == "1\n"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "faults, message",
    [
        ([status(500, "broken")] * 4, "HTTP 500: 'broken'.*Check that the server runs"),
        (
            [status(400, '{"message": "python-3 runtime is unknown"}')],
            "python-3 runtime is unknown",
        ),
        ([status(200, "<html>")], "no answer of such a server: '<html>'"),
        ([status(200, "[]")], "no answer of such a server"),
        ([status(200, '{"status": "Success", "run_result": {}, "run": {}}')], "no answer of such"),
        ([lambda handler: handler.connection.close()] * 4, "Check that the server runs"),
    ],
)
def test_faults_end_in_one_clear_line(runner, server, faults, message):
    server.faults = list(faults)
    with pytest.raises(RemoteSandboxError, match=message) as error:
        runner.run_program("print(1)")
    assert str(server.server_port) in str(error.value) and "\n" not in str(error.value)
    assert len(server.requests) == len(faults)


def test_failure_of_sandbox_fusion_itself(server):
    answer = json.dumps({"status": "SandboxError", "message": "no disk", "run_result": None})
    server.faults = [status(200, answer)]
    with RemoteCodeRunner(f"http://127.0.0.1:{server.server_port}") as runner:
        with pytest.raises(RemoteSandboxError, match="made no run: no disk"):
            runner.run_program("print(1)")


def test_silent_server_times_out(server):
    release = threading.Event()
    server.faults = [lambda handler: release.wait(20)] * 4
    url = f"http://127.0.0.1:{server.server_port}"
    started = time.monotonic()
    with RemoteCodeRunner(url, limits=Limits(wall_s=0.1), queue_s=0.1) as runner:
        with pytest.raises(RemoteSandboxError, match="timed out"):
            runner.run_program("print(1)")
    release.set()
    assert time.monotonic() - started < 10


def test_no_server():
    with RemoteCodeRunner("http://127.0.0.1:9") as runner:
        with pytest.raises(RemoteSandboxError, match="127.0.0.1:9.*refused"):
            runner.run_program("print(1)")


def test_bad_arguments():
    with pytest.raises(ValueError, match="service = 'judge0'"):
        RemoteCodeRunner("http://host", service="judge0")
    with pytest.raises(ValueError, match="url = 'host:8080'"):
        RemoteCodeRunner("host:8080")
