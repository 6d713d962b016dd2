"""Tests the sandbox against programs that try to escape, to stay, or to take more than their share.

code_runner_attempts.py lists the attempts.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from reasoning.code_runner import CallTest, CodeRunner, Limits, SandboxUnavailable
from reasoning.code_runner.sandbox import landlock
from tests.reasoning.code_runner import code_runner_attempts as table

REPOSITORY = str(pathlib.Path(__file__).parents[3])
LIMITS = Limits(wall_s=10.0, cpu_s=2, threads=8)
# As root, "auto" is "namespaces"; an ordinary user's run of the table is below.
ISOLATIONS = ("auto", "user-namespaces", "landlock", "seccomp")


@pytest.fixture(scope="module", params=ISOLATIONS)
def runner(request):
    os.environ["SECRET"] = "secret-7c1d"
    try:
        with CodeRunner(1, LIMITS, isolation=request.param) as runner:
            yield runner
    except SandboxUnavailable as error:
        # Not for the others, which hold on every kernel that the sandbox is made for.
        if request.param == "user-namespaces" or (
            request.param == "landlock" and not landlock.abi_version()
        ):
            pytest.skip(str(error))
        raise
    finally:
        del os.environ["SECRET"]


@pytest.fixture(scope="module")
def targets():
    with table.targets() as aims_and_changes:
        yield aims_and_changes


def processes_below(pid):
    """The process ids of all descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            children.setdefault(parent, []).append(int(name))
    found, to_visit = set(), [pid]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found.update(below)
        to_visit += below
    return found


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("attempt", table.ATTEMPTS, ids=lambda attempt: attempt.name)
def test_attempt_fails(runner, targets, attempt):
    aims, changes = targets
    result = runner.run_program(attempt.source, stdin=aims)
    assert "ESCAPED" not in result.stdout
    assert changes() is None
    assert result.status in ("ok", "error", "memory"), result


@pytest.mark.parametrize(
    "attempt", [a for a in table.ATTEMPTS if a.works_bare], ids=lambda attempt: attempt.name
)
def test_attempt_is_a_real_one(attempt, tmp_path):
    """Without a sandbox the same program gets what it wants."""
    with table.targets() as (aims, _):
        bare = subprocess.run(
            [sys.executable, "-c", attempt.source],
            input=aims,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"SECRET": "secret-7c1d"},
            timeout=30,
        )
    assert "ESCAPED" in bare.stdout, bare.stderr


def test_attempts_of_an_ordinary_user():
    """The same table, where the sandbox itself is set up without root's rights."""
    if os.geteuid() != 0:
        pytest.skip("the other tests have run as an ordinary user")
    nobody = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    script = textwrap.dedent(f"""
        import json, sys
        sys.path[:0] = [{REPOSITORY!r}]
        from tests.reasoning.code_runner import code_runner_attempts as table
        found = table.escapes_by_isolation()
        print(json.dumps(found))
    """)
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        check = f"import sys, os; assert sys.version_info >= (3, 11); os.listdir({REPOSITORY!r})"
        try:
            usable = subprocess.run([python, "-c", check], capture_output=True, **nobody)
        except OSError:
            continue
        if usable.returncode == 0:
            break
    else:
        pytest.skip("no Python 3.11 or checkout that user 65534 may read")
    done = subprocess.run(
        [python, "-B", "-c", script],
        env={"SECRET": "secret-7c1d"},
        capture_output=True,
        text=True,
        timeout=240,
        **nobody,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    made = {name: escaped for name, escaped in found.items() if not isinstance(escaped, str)}
    assert "seccomp" in made  # every kernel has it
    assert not any(made.values()), made


@pytest.fixture(scope="module")
def strict_runner():
    limits = Limits(wall_s=2.0, cpu_s=1, memory_bytes=256 << 20)
    with CodeRunner(1, limits) as runner:
        yield runner


@pytest.mark.parametrize("name", table.OVERRUNS)
def test_overrun_is_stopped(strict_runner, name):
    program, statuses = table.OVERRUNS[name]
    started = time.monotonic()
    result = strict_runner.run_program("print('begun', flush=True)\n" + program)
    assert result.status in statuses, result
    assert result.stdout.startswith("begun")
    assert len(result.stdout) + len(result.stderr) <= 2 * strict_runner.limits.output_bytes
    assert time.monotonic() - started < 5.0
    assert strict_runner.run_program("print('well')").stdout == "well\n"


def test_cpu_time_is_limited_apart_from_wall_time():
    with CodeRunner(1, Limits(wall_s=30.0, cpu_s=1)) as runner:
        result = runner.run_program("while True: pass")
    assert result.status == "timeout"
    assert result.wall_s < 20.0


def test_scratch_is_all_that_can_be_written(runner):
    """Where there is a scratch folder, it works and holds as much as the limit says, no more."""
    program = """
        import os
        written = 0
        try:
            for number in range(64):
                with open(f"part{number}", "wb") as file:
                    for _ in range(16):
                        written += file.write(bytes(65536))
                        file.flush()
        except OSError:
            pass
        print(written)
    """
    result = runner.run_program(textwrap.dedent(program))
    written = int(result.stdout)
    if runner.isolation in ("landlock", "seccomp"):
        assert written == 0
    else:
        assert 0.9 * LIMITS.scratch_bytes < written <= LIMITS.scratch_bytes


def test_number_of_threads_is_limited(runner):
    program = """
        import threading
        done, started = threading.Event(), 0
        try:
            for started in range(100):
                threading.Thread(target=done.wait).start()
        except RuntimeError:
            print(started)
        done.set()
    """
    started = int(runner.run_program(textwrap.dedent(program)).stdout)
    allowed = LIMITS.threads - 1 if runner.isolation.endswith("namespaces") else 0
    assert started in (allowed, 0)  # none where the kernel does not count by user namespace
    assert started == allowed or runner.isolation == "user-namespaces"


def test_nothing_stays_for_the_next_program(runner):
    first = """
        import builtins, json, math, os, random, sys
        math.pi = 3
        builtins.planted = json.planted = "planted"
        sys.modules["planted"] = json
        os.environ["PLANTED"] = "planted"
        random.seed(7)
        sys.setrecursionlimit(50_000)
        try:
            open("planted.txt", "w").write("planted")
            os.umask(0)
        except OSError:
            pass
        print("planted")
    """
    second = """
        import builtins, json, math, os, sys
        print(math.pi, hasattr(builtins, "planted"), hasattr(json, "planted"))
        print("planted" in sys.modules, "PLANTED" in os.environ, sys.getrecursionlimit())
        try:
            print(os.listdir("."))
        except OSError:
            print([])
    """
    assert runner.run_program(textwrap.dedent(first)).stdout == "planted\n"
    fresh = "3.141592653589793 False False\nFalse False 1000\n[]\n"
    assert runner.run_program(textwrap.dedent(second)).stdout == fresh


def test_memory_holds_no_other_program(runner):
    """A program that searches its own memory finds its own text, not its predecessor's."""
    search = """
        import ctypes, os, re
        libc = ctypes.CDLL(None)
        libc.sbrk.restype = ctypes.c_void_p
        read_end, write_end = os.pipe()
        found = set()
        def look(address):  # writing to a pipe probes an address without a crash
            size = libc.write(write_end, ctypes.c_void_p(address), 4096)
            if size > 0:
                found.update(re.findall(rb"(nee[d]le|ha[y]stack)-51f3", os.read(read_end, size)))
            return size > 0
        address = libc.sbrk(0) - 4096  # the heap, from its end
        while look(address):
            address -= 4096
        middle = id(object()) & ~4095  # the interpreter's own arenas
        for address in range(middle - 2**26, middle + 2**26, 4096):
            look(address)
        print(sorted(found))  # haystack-51f3
    """
    runner.run_program("x = input()  # needle-51f3", stdin="needle-51f3 " * 1000)
    runner.run_tests("# needle-51f3", [CallTest("'needle-51f3'", "needle-51f3")])
    assert runner.run_program(textwrap.dedent(search)).stdout == "[b'haystack']\n"


def test_no_process_outlives_its_program(runner):
    """What remains is the zygote, the next program's supervisor and its waiting process."""
    for name in ("daemon", "fork_bomb", "start_thousands_of_threads"):
        (attempt,) = [a for a in table.ATTEMPTS if a.name == name]
        runner.run_program(attempt.source, stdin='{"pid": 0}')
    runner.run_program("import os, threading\nthreading.Thread(target=input).start()\nos._exit(0)")
    zygote = runner._workers[0]._process.pid
    assert wait_until(lambda: len(processes_below(zygote)) == 2)


def test_all_ends_with_the_runner():
    runner = CodeRunner(2, LIMITS)
    zygotes = [worker._process.pid for worker in runner._workers]
    family = {*zygotes, *(p for zygote in zygotes for p in processes_below(zygote))}
    assert len(family) >= 4
    runner.close()
    assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family))


def test_all_ends_when_this_process_is_killed():
    script = """
        from reasoning.code_runner import CodeRunner, Limits
        runner = CodeRunner(1, Limits(wall_s=100.0))
        print("ready", flush=True)
        runner.run_program("import time; time.sleep(90)")
    """
    script = textwrap.dedent(script)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    assert wait_until(lambda: len(processes_below(process.pid)) == 3)
    time.sleep(0.3)  # the program runs
    family = processes_below(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family))


def test_killed_zygote_is_replaced_and_its_program_ends():
    with CodeRunner(1, LIMITS) as runner:
        zygote = runner._workers[0]._process.pid
        assert wait_until(lambda: len(processes_below(zygote)) == 2)
        family = processes_below(zygote)
        os.kill(zygote, signal.SIGKILL)
        assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family))
        assert runner.run_program("print(1)").status == "killed"
        assert runner.run_program("print(1)").stdout == "1\n"
