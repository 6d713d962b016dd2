"""Tests that programs, unit tests and expressions run correctly, and that programs cannot cheat."""

import collections
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from reasoning import code_runner
from reasoning.code_runner import (
    CallTest,
    CodeRunner,
    ExpressionTest,
    Limits,
    SandboxUnavailable,
    StdinTest,
    escapes,
    judging,
    local,
    parse_unit_test,
)
from reasoning.code_runner.sandbox import harness, isolation, landlock

REPOSITORY = str(pathlib.Path(__file__).parents[3])


@pytest.fixture(scope="module")
def runner():
    with CodeRunner(2, Limits(wall_s=10.0, cpu_s=1)) as runner:
        yield runner


def python_alone(script, **options):
    """Runs a script in an interpreter of its own, in the repository."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        **({"cwd": REPOSITORY} | options),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Programs.


@pytest.mark.parametrize(
    "program, stdin, stdout, exit_code",
    [
        ("print('hello')", "", "hello\n", 0),
        ("for line in iter(input, ''): print(line[::-1])", "abc\ndéf\n\n", "cba\nféd\n", 0),
        ("import sys; print(sum(map(int, sys.stdin)))", "1\n2\n" * 50_000, "150000\n", 0),
        ("if __name__ == '__main__': print(__name__)", "", "__main__\n", 0),
        ("exit(3)", "", "", 3),
        ("import sys; print(1); sys.exit()", "", "1\n", 0),
        ("raise SystemExit('wrong')", "", "", 1),
        ("import atexit; atexit.register(print, 'last'); print('first')", "", "first\nlast\n", 0),
        ("open(1, 'w').write('never closed')", "", "never closed", 0),
        ("import sys; sys.stdout.buffer.write(b'a\\xff')", "", "a\ufffd", 0),
        ("def f(n): return n and f(n - 1)\nprint(f(900))", "", "0\n", 0),
        ("import asyncio\nasync def f(): print('a')\nasyncio.run(f())", "", "a\n", 0),
        (
            "import sqlite3, hashlib, ctypes, lzma\n"
            "print(sqlite3.connect(':memory:').execute('select 6 * 7').fetchone()[0])",
            "",
            "42\n",
            0,
        ),
        ("import sys\nprint(sys.argv, open('/dev/null').read())", "", "['program.py'] \n", 0),
    ],
)
def test_harmless_program(runner, program, stdin, stdout, exit_code):
    result = runner.run_program(program, stdin=stdin)
    assert (result.stdout, result.exit_code) == (stdout, exit_code), result
    assert result.status == ("ok" if exit_code == 0 else "error")


def test_program_with_files_and_threads(runner):
    if runner.isolation in ("landlock", "seccomp"):
        pytest.skip(f"isolation by {runner.isolation} has no scratch folder and no threads")
    program = """
        import os, pathlib, shutil, tempfile, threading
        folder = pathlib.Path(tempfile.mkdtemp())
        def write(number): (folder / str(number)).write_text("x" * number)
        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        shutil.copytree(folder, "copy")
        print(sum(len(path.read_text()) for path in pathlib.Path("copy").iterdir()))
    """
    assert runner.run_program(textwrap.dedent(program)).stdout == "28\n"


def test_error_report_shows_the_program_alone(runner):
    result = runner.run_program("def f():\n    1 / 0\nf()")
    frames = [line for line in result.stderr.splitlines() if line.startswith("  File")]
    assert frames == [
        '  File "program.py", line 3, in <module>',
        '  File "program.py", line 2, in f',
    ]
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_same_program_gives_the_same_output(runner):
    program = "import random; print(random.random(), {str(i) for i in range(9)}, hash('a'))"
    outputs = {runner.run_program(program).stdout for _ in range(4)}
    assert len(outputs) == 1


# Unit tests.


def test_calls(runner):
    program = "def add(a, b):\n    return a + b"
    tests = [CallTest("add(2, 3)", 5), CallTest("add('a', 'b')", "ab"), CallTest("add(1, 1)", 3)]
    result = runner.run_tests(program, tests)
    assert (result.passed, result.total, result.all_passed) == (2, 3, False)
    assert result.reason == "2 of 3 tests passed; test 3: add(1, 1) gave 2, expected 3"
    assert runner.run_tests(program, tests[:2]).all_passed


def test_main_block_does_not_run_in_calls(runner):
    program = "def f(): return __name__\nif __name__ == '__main__': raise SystemExit"
    assert runner.run_tests(program, [CallTest("f()", "program")]).all_passed


@pytest.mark.parametrize(
    "program, reason",
    [
        ("def f(: pass", "the program did not load: raised SyntaxError"),
        ("raise KeyError('k')", "the program did not load: raised KeyError: 'k'"),
        ("import sys; sys.exit(0)", "the program did not load: raised SystemExit: 0"),
        (
            "import os; os._exit(0)",
            "the program did not load: got no answer: the program ended with exit code 0",
        ),
        ("x = bytearray(10**10)", "the program did not load: raised MemoryError"),
        ("def f(): return g", "test 1: f() raised NameError: name 'g' is not defined"),
        ("def f(): return 2 + 0j", "raised TypeError: a complex is not plain data"),
        ("def f():\n    a = []; a.append(a); return a", "raised RecursionError"),
        ("def f(): return 10 ** 5000", "test 1: f() gave 0x31e208010365"),
        ("def f():\n    while True: pass", "no answer: the program ran past its time limit"),
    ],
)
def test_reason_of_failure(runner, program, reason):
    result = runner.run_tests(program, [CallTest("f()", 1)])
    assert result.passed == 0
    assert reason in result.reason


def test_stdin_tests(runner):
    program = "n = int(input())\nprint(n * 2, ' ')\nif n == 9: raise SystemExit(1)"
    tests = [
        StdinTest("1\n", "2"),
        StdinTest("2", "4\n\n"),
        StdinTest("3", "7"),
        StdinTest("9", "18"),
    ]
    result = runner.run_tests(program, tests)
    assert result.passed == 2
    assert (
        result.reason == "2 of 4 tests passed; test 3: the program printed '6  \\n', expected '7'"
    )
    assert not runner.run_tests("print('a b')", [StdinTest("", "a  b")]).all_passed
    assert not runner.run_tests("print(' a')", [StdinTest("", "a")]).passed


def test_stdin_tests_stop_at_a_limit(runner):
    program = "n = int(input())\nwhile n == 2: pass\nprint(n)"
    result = runner.run_tests(program, [StdinTest(str(n), str(n)) for n in (1, 2, 3)])
    assert result.passed == 1
    assert "test 2: the program ran past its time limit" in result.reason


def test_expressions(runner):
    tests = [ExpressionTest({"a": 2, "b": 5}, 13), ExpressionTest({"a": 0, "b": 1}, 3)]
    assert runner.run_tests("a * b + 3", tests).all_passed
    assert runner.run_tests(" sum(x * b for x in [a]) + 3 ", tests).all_passed
    assert runner.run_tests("a + b + 6", tests).passed == 1
    result = runner.run_tests("a / b", [ExpressionTest({"a": 1, "b": 0}, 1)])
    assert result.reason.endswith(
        "a = 1, b = 0 raised ZeroDivisionError: division by zero, expected 1"
    )
    assert runner.run_tests("c = a", tests).passed == 0  # a statement


def test_evaluate_expression(runner):
    assert runner.evaluate_expression("a * b + 3", {"a": 2, "b": 5}).value == 13
    result = runner.evaluate_expression("{'k': (1, [True, None]), 2: {'x'}}", {})
    assert result.ok and result.value == {"k": (1, [True, None]), 2: {"x"}}
    for expression, reason in {
        "a +": "SyntaxError",
        "b": "NameError",
        "__import__('os').getpid": "not plain data",
        "9 ** 9 ** 9 ** 9": "time limit",
        "__import__('os')._exit(0)": "no value",
        "list(range(20_000))": "a value of 1",
    }.items():
        result = runner.evaluate_expression(expression, {"a": 1})
        assert not result.ok and result.value is None and reason in result.reason, result


PLAIN_VALUES = [
    None, True, False, 0, 1, -7, 10**30, 0.0, 1.0, 0.1, 1e300, float("inf"), "", "1", "é\ud800\n",
    [], (), set(), frozenset(), {}, [1], (1,), {1}, {1: 2}, {"1": 2}, [True], [1.0], [[1]], [(1,)],
    {"a": [1, (2, {3})]}, [1, 2], [2, 1], 10**5000, 10**5000 + 1, -(10**5000), {10**5000},
]  # fmt: skip


def test_plain_values_equal_only_themselves():
    """Equal text means equal type and value, against Python's own type and ==."""

    def types(value):
        if isinstance(value, dict):
            parts = [(types(k), types(v)) for k, v in sorted(value.items())]
        elif isinstance(value, (list, tuple, set, frozenset)):
            parts = [types(item) for item in value]
        else:
            parts = []
        return type(value), parts

    for a in PLAIN_VALUES:
        for b in PLAIN_VALUES:
            same = types(a) == types(b) and a == b
            assert (harness.encode(a) == harness.encode(b)) == same, (a, b)
        decoded = judging.decode(harness.encode(a))
        assert types(decoded) == types(a) and decoded == a


def test_long_integers(runner):
    """Python refuses to write more than 4,300 digits unless it is told otherwise."""
    tests = [CallTest("f(5000)", 10**5000), CallTest("[f(5000)]", [10**5000])]
    assert runner.run_tests("def f(n): return 10**n", tests).all_passed
    result = runner.run_tests("def f(n): return 10**n + 1", tests)
    assert result.passed == 0 and "gave" in result.reason and len(result.reason) < 400
    printed = StdinTest("", "1" + "0" * 5000)
    assert runner.run_tests("print(10**5000)", [printed]).all_passed
    assert runner.evaluate_expression("10**5000", {}).value == 10**5000
    assert runner.evaluate_expression("int('7' * 5000) % 10", {}).value == 7


HOSTILE_RESULTS = {
    # Hashes are taken modulo 2**61 - 1, so that all of these collide.
    "colliding set": "{i * (2**61 - 1) for i in range(1, 3000)}",
    "colliding set by hand": "hand('{\"set\": [%s]}' % ', '.join("
    "str(i * (2**61 - 1)) for i in range(1, 42_000)))",
    "colliding keys by hand": "hand('{\"dict\": [%s]}' % ', '.join("
    "'[%d, 0]' % (i * (2**61 - 1)) for i in range(1, 35_000)))",
    "deep": "hand('{\"list\": [' * 50_000)",
    "long list": "list(range(100_000))",
    "long text": "'x' * 900_000",
    "long numbers": "hand('{\"list\": [%s]}' % ', '.join(['9' * 4299] * 200))",
    "longest number": "hand('9' * 900_000)",
    "lines": "hand('\\n' * 900_000)",
}


@pytest.fixture(scope="module")
def impatient():
    """A runner that soon gives up a program which keeps quiet."""
    with CodeRunner(1, Limits(wall_s=2.0, cpu_s=1)) as runner:
        yield runner


@pytest.mark.parametrize("name", HOSTILE_RESULTS)
def test_hostile_results_take_little_of_this_process(impatient, name):
    program = (
        "import os, time\n"
        "def hand(text):\n"
        "    os.write(4, b'{\"value\": ' + text.encode() + b'}\\n')\n"
        "    time.sleep(10)\n"
        f"def f(): return {HOSTILE_RESULTS[name]}"
    )
    start = time.process_time()
    result = impatient.run_tests(program, [CallTest("f()", {1, 2}), CallTest("f()", "x")])
    assert time.process_time() - start < 0.3
    assert result.passed == 0 and len(result.reason) < 500


def test_order_and_subclasses_do_not_matter():
    class MyInt(int):
        pass

    def encode(value):
        return harness.encode(value)

    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})
    assert encode({8, 0}) == encode({0, 8})
    assert encode(collections.Counter("aab")) == encode({"a": 2, "b": 1})
    assert encode([MyInt(3)]) == encode([3])
    assert encode(-0.0) == encode(0.0)
    assert encode(float("nan")) == encode(float("nan"))


# Cheating. Each program must pass no test: solve(3) is to give a value that nothing tells it.

SECRET = "a value that only the tests know"

CHEATS = {
    "equal_to_all": """
        class Same:
            def __eq__(self, other): return True
            __hash__ = None
        def solve(n): return Same()
    """,
    "equal_string": """
        class Same(str):
            def __eq__(self, other): return True
            def __str__(self): return self
            def __reduce__(self): return (str, ("x",))
        def solve(n): return Same("x")
    """,
    "print_verdicts": """
        import json, sys
        for text in ("OK", "1 passed", '{"value": true}', '{"passed": 1}'):
            print(text); print(text, file=sys.stderr)
        def solve(n): return True
    """,
    "forge_replies": """
        import os
        for fd in range(1, 64):
            for text in (b'{"value": null}', b'{"correct": true}', b'{"value": true}'):
                try: os.write(fd, text + b"\\n")
                except OSError: pass
        def solve(n): return True
    """,
    "flood_of_replies": """
        import json, os
        for guess in range(2000): os.write(4, json.dumps({"value": guess}).encode() + b"\\n")
        def solve(n): return 0
    """,
    "guess_twice": """
        import json, os
        def solve(n):
            for guess in ("one value", "a value that only the tests know"[::-1]):
                os.write(4, json.dumps({"value": guess}).encode() + b"\\n")
            return None
    """,
    "exit_in_thread": """
        import os, threading
        threading.Timer(0.05, os._exit, [0]).start()
        def solve(n):
            while True: pass
    """,
    "exit_well": """
        import os
        def solve(n): os._exit(0)
    """,
    "patch_json": """
        import builtins, json
        json.dumps = lambda *args, **kwargs: '{"value": true}'
        json.loads = lambda *args, **kwargs: True
        builtins.isinstance = lambda *args: True
        builtins.eval = lambda *args: True
        def solve(n): return object()
    """,
    "search_frames_and_objects": """
        import gc, sys
        def solve(n):
            found = []
            frame = sys._getframe()
            while frame:
                found.append(repr(frame.f_locals) + repr(frame.f_globals))
                frame = frame.f_back
            for thing in gc.get_objects():
                try: found.append(repr(thing))
                except Exception: pass
            text = "".join(found)
            start = text.find("a value that " + "only")
            return text[start:start + 32] if start >= 0 else "not found"
    """,
    "search_files": """
        import os
        def solve(n):
            for folder in ("/", "/proc/self", "/proc/1", "/tmp", ".", "/scratch", "/work", "/root"):
                try: names = os.listdir(folder)
                except OSError: continue
                for name in names:
                    try: text = open(os.path.join(folder, name), errors="replace").read(10**6)
                    except OSError: continue
                    if "only the tests" + " know" in text: return "a value that only the tests know"
            return "not found"
    """,
    "deep_reply": """
        import os
        def solve(n):
            os.write(4, b'{"value": ' + b'{"list": [' * 20000 + b"]}" * 20000 + b"}\\n")
            os._exit(0)
    """,
    "huge_number_reply": """
        import os
        def solve(n):
            os.write(4, b'{"value": ' + b"9" * 500000 + b"}\\n")
            os._exit(0)
    """,
    "garbage_reply": """
        import os
        def solve(n):
            os.write(4, bytes(range(256)) + b"\\n")
            os._exit(0)
    """,
    "endless_reply": """
        import os
        def solve(n):
            while True: os.write(4, b"x" * 65536)
    """,
    "hostile_error": """
        class Evil(BaseException):
            def __str__(self): raise Evil
        def solve(n): raise Evil
    """,
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_earns_nothing(runner, name):
    program = textwrap.dedent(CHEATS[name]).replace(f'"{SECRET}"[::-1]', "'?'")
    result = runner.run_tests(
        program, [CallTest("solve(3)", SECRET), CallTest("solve(4)", [SECRET])]
    )
    assert (result.passed, result.total) == (0, 2), result
    assert len(result.reason) < 500


def test_only_the_first_answer_counts(runner):
    """All guesses at once, the right one among them, are worth nothing and end the run."""
    started = time.monotonic()
    flood = "import json, os\nfor n in range(100): os.write(4, json.dumps({'value': n}).encode())\n"
    assert runner.run_tests(flood + "def f(): return 0", [CallTest("f()", 42)]).passed == 0
    loaded = "import os\nos.write(4, b'{\"value\": null}\\n')\n"
    answers = "for n in range(100): os.write(4, b'{\"value\": %d}\\n' % n)\n"
    assert runner.run_tests(loaded + answers, [CallTest("f()", 42)]).passed == 0
    assert time.monotonic() - started < runner.limits.wall_s / 2


def test_forged_answer_must_still_be_right(runner):
    """Writing the reply oneself is no cheat when the value is right: it is just an answer."""
    program = "import os\ndef f(n): os.write(4, b'{\"value\": %d}\\n' % (n + 1)); os._exit(0)"
    assert runner.run_tests(program, [CallTest("f(1)", 2)]).passed == 1
    assert runner.run_tests(program, [CallTest("f(1)", 3)]).passed == 0


def test_inputs_are_shown_one_by_one(runner):
    """While a program answers the first test, nothing of the second is there to be read."""
    program = """
        import gc, io, os
        def f(n):
            os.set_blocking(3, False)
            seen = b""
            for reader in [o for o in gc.get_objects() if isinstance(o, io.BufferedReader)]:
                if reader.fileno() == 3: seen += b"reader " + reader.peek()
            try: seen += os.read(3, 1000)
            except BlockingIOError: pass
            os.set_blocking(3, True)
            return seen.decode()
    """
    tests = [CallTest("f(1)", "reader "), CallTest("f('second')", "reader ")]
    assert runner.run_tests(textwrap.dedent(program), tests).passed == 2


def test_printing_the_answers_of_other_tests_does_not_help(runner):
    tests = [StdinTest("1", "one"), StdinTest("2", "two")]
    assert runner.run_tests("print('one\\ntwo\\nOK')", tests).passed == 0
    assert runner.run_tests("print('one')\nraise SystemExit(1)", tests).passed == 0


# The pool.


def test_batch_keeps_its_order(runner):
    jobs = [(f"def f(x): return x + {n}", [CallTest("f(1)", n + 1)]) for n in range(12)]
    jobs[5] = ("while True: pass", [CallTest("f(1)", 0)])
    passed = [result.passed for result in runner.run_tests_batch(jobs)]
    assert passed == [1] * 5 + [0] + [1] * 6


def test_runs_from_many_threads(runner):
    results = {}

    def run(n):
        results[n] = runner.run_program(f"print({n})").stdout

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: f"{n}\n" for n in range(8)}


def test_module_functions_share_a_runner():
    limits = Limits(wall_s=10.0)
    assert code_runner.run_program("print(input())", stdin="x", limits=limits).stdout == "x\n"
    tests = [CallTest("f()", 1)]
    assert code_runner.run_tests("def f(): return 1", tests, limits=limits).all_passed
    assert code_runner.evaluate_expression("a + 1", {"a": 1}, limits=limits).value == 2
    assert local._shared_runner.cache_info().misses == 1


def test_closed_runner_refuses():
    runner = CodeRunner(1)
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner.run_program("print(1)")


def test_import_is_light():
    loaded = python_alone(
        "import sys, reasoning.code_runner; print(*sys.modules.keys() & {'jax', 'numpy', 'sympy'})"
    )
    assert loaded == "\n"


# Refusal.


def test_refuses_other_systems(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="cannot be isolated on darwin.*RemoteCodeRunner"):
        CodeRunner(1)


def test_refuses_where_no_isolation_holds(monkeypatch):
    monkeypatch.setattr(local, "ISOLATIONS", ("walls-of-paper", "goodwill"))
    with pytest.raises(
        SandboxUnavailable, match="walls-of-paper: .*; goodwill: .*Run on Linux"
    ) as e:
        CodeRunner(1)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "forbidden, isolation_taken",
    [(("unshare",), "landlock"), (("unshare", "landlock_create_ruleset"), "seccomp")],
)
def test_container_that_forbids_the_stronger_walls(forbidden, isolation_taken):
    """In a container such as Docker's default, the next best isolation is taken, and works."""
    if isolation_taken == "landlock" and not landlock.abi_version():
        pytest.skip("the kernel offers no Landlock")
    script = f"""
        import platform, struct
        from reasoning.code_runner import CallTest, CodeRunner
        from reasoning.code_runner.sandbox import libc, seccomp
        numbers = {{
            "unshare": {{"x86_64": 272, "aarch64": 97}}[platform.machine()],
            "landlock_create_ruleset": 444,
        }}
        # Load the call's number; EPERM for the forbidden ones; allow the others.
        bpf = [(0x20, 0, 0, 0)]
        for name in {forbidden}:
            bpf += [(0x15, 0, 1, numbers[name]), (0x06, 0, 0, 0x00050001)]
        bpf += [(0x06, 0, 0, 0x7FFF0000)]
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(b"".join(struct.pack("=HBBI", *instruction) for instruction in bpf))
        with CodeRunner(1) as runner:
            print(runner.isolation)
            print(runner.run_tests("def f(x): return x + 1", [CallTest("f(1)", 2)]).reason)
    """
    assert python_alone(script) == f"{isolation_taken}\n1 of 1 tests passed\n"


def test_names_of_isolations_agree():
    assert local.ISOLATIONS == tuple(isolation.ISOLATIONS)


def test_probe_finds_a_missing_wall(tmp_path):
    """With the system-call filter left out of a copy of the code, no program is run."""
    shutil.copytree(os.path.join(REPOSITORY, "reasoning"), tmp_path / "reasoning")
    path = tmp_path / "reasoning/code_runner/sandbox/isolation.py"
    text = path.read_text()
    assert text.count("seccomp.install(") == 1
    path.write_text(text.replace("seccomp.install(", "id("))
    script = """
        from reasoning.code_runner import CodeRunner, SandboxUnavailable
        try:
            CodeRunner(1, isolation="seccomp")
        except SandboxUnavailable as error:
            print(error)
    """
    refusal = python_alone(script, cwd=tmp_path)
    assert "a program could escape" in refusal
    assert "process_started" in refusal and "internet_socket" in refusal


def test_probe_attempts_are_real_ones(tmp_path):
    """Without a sandbox most of them work (the others need rights that a user may lack)."""
    canary = tmp_path / "canary"
    canary.write_text("canary")
    bare = subprocess.run(
        [sys.executable, "-c", escapes.ESCAPES],
        input=f'{{"canary": "{canary}", "pid": {os.getpid()}, "memory_bytes": 1048576}}\n',
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert set(bare.stdout.split()) >= {
        "file_read",
        "file_written",
        "file_linked",
        "file_mode_changed",
        "environment_read",
        "folder_listed",
        "process_started",
        "process_signalled",
        "internet_socket",
        "local_socket",
        "memory_limit_passed",
    }


# Bad input.


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"wall_s": 0}, "Limits.wall_s = 0: give a positive number"),
        ({"cpu_s": 0.5}, "Limits.cpu_s = 0.5: give a positive whole number"),
        ({"memory_bytes": "1G"}, "Limits.memory_bytes = '1G'"),
        ({"threads": True}, "Limits.threads = True"),
    ],
)
def test_bad_limits(fields, message):
    with pytest.raises(ValueError, match=message):
        Limits(**fields)


def test_limits_too_small_for_python():
    with pytest.raises(SandboxUnavailable, match="MemoryError|memory|escape test"):
        CodeRunner(1, Limits(memory_bytes=1 << 20), isolation="seccomp")


@pytest.mark.parametrize(
    "tests, message",
    [
        ([], "no unit tests"),
        ([CallTest("f()", 1), StdinTest("", "")], "only one kind for a program"),
        ([("f()", 1)], "kinds \\['tuple'\\]"),
        ([CallTest("f()", object())], "a object is not plain data"),
        ([ExpressionTest({"a": [1]}, 1)], "variable a = \\[1\\]"),
    ],
)
def test_bad_unit_tests(runner, tests, message):
    with pytest.raises(ValueError, match=message):
        runner.run_tests("x = 1", tests)


def test_unit_tests_from_records():
    assert parse_unit_test({"call": "f(1)", "expected": [1]}) == CallTest("f(1)", [1])
    assert parse_unit_test({"stdin": "1", "stdout": "2"}) == StdinTest("1", "2")
    record = {"variables": {"a": 1}, "expected": 2}
    assert parse_unit_test(record) == ExpressionTest({"a": 1}, 2)
    with pytest.raises(ValueError, match="fields \\['assert'\\]"):
        parse_unit_test({"assert": "f(1) == 1"})


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_workers = 0"):
        CodeRunner(0)
    with pytest.raises(ValueError, match="isolation = 'docker'"):
        CodeRunner(1, isolation="docker")
