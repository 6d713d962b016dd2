"""Tests the worker pool: order, limits, and that one bad call loses only its own result."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from reasoning.workers.pool import MAX_STARTS, WorkerError, WorkerPool
from tests.reasoning.workers import pool_functions

FATAL = ["exit", "sys.exit", "segfault", "kill", "memory"]
ENDLESS = ["loop", "sleep", "tower", "ignore signals"]


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(
        pool_functions.misbehave, 2, timeout_s=0.3, on_timeout="too long", on_crash="died"
    ) as pool:
        pool("warm up")
        yield pool


def test_results_keep_the_order():
    with WorkerPool(pool_functions.pid_and_square, 2, timeout_s=10) as pool:
        results = pool.map([(x,) for x in range(500)])
    assert [square for _, square in results] == [x * x for x in range(500)]
    pids = {pid for pid, _ in results}
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.parametrize("how", FATAL)
def test_a_worker_that_dies_costs_only_its_own_call(pool, how):
    assert pool.map([("a",), (how,), ("b",), ("c",)]) == ["a", "died", "b", "c"]


def test_calls_over_the_limit_are_killed_and_the_others_kept(pool):
    calls = [x for how in ENDLESS for x in (f"before {how}", how, f"after {how}")]
    start = time.monotonic()
    results = pool.map([(call,) for call in calls])
    assert results == ["too long" if call in ENDLESS else call for call in calls]
    assert time.monotonic() - start < 0.3 * len(ENDLESS) + 2


def test_an_exception_of_the_function_is_raised_here_with_its_traceback(pool):
    with pytest.raises(WorkerError, match="no such thing"):
        pool.map([("a",), ("raise",)])
    for how in ("not JSON", "deep"):
        with pytest.raises(WorkerError, match="JSON|Recursion"):
            pool(how)
    assert pool("a") == "a"
    with pytest.raises(TypeError, match="JSON"):
        pool({"a"})


@pytest.mark.parametrize("kind", ["pickle", "ticket", "number", "deep", "long"])
def test_a_worker_that_writes_what_it_likes_costs_only_its_own_call(pool, kind, tmp_path):
    """The text it was given has taken it over: it must not reach this process or other calls."""
    canary = tmp_path / "canary"
    results = pool.map([("a",), (f"forge {kind} {canary}",), ("b",), ("c",)])
    assert results == ["a", "died", "b", "c"]
    assert not canary.exists()
    assert pool.map([(str(i),) for i in range(50)]) == [str(i) for i in range(50)]


def test_sets_have_one_order_in_every_pool():
    orders = []
    for _ in range(2):
        with WorkerPool(pool_functions.order_of_a_set, 1, timeout_s=10) as pool:
            orders.append(pool([f"word {i}" for i in range(50)]))
    assert orders[0] == orders[1]


def test_threads_share_a_pool(pool):
    results = {}

    def run(name):
        results[name] = pool.map([(f"{name} {i}",) for i in range(50)])

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: [f"{name} {i}" for i in range(50)] for name in "abcd"}


def test_large_arguments_and_results_do_not_deadlock(pool):
    texts = [str(i) * 200_000 for i in range(20)]
    assert pool.map([(text,) for text in texts]) == texts


def test_processor_time_is_limited_and_waiting_is_not():
    with WorkerPool(
        pool_functions.misbehave, 1, timeout_s=60, cpu_s=0.3, on_timeout="long", on_crash="died"
    ) as pool:
        start = time.monotonic()
        assert pool.map([("a",), ("loop",), ("b",), ("tower",), ("c",)]) == [
            "a",
            "long",
            "b",
            "long",
            "c",
        ]
        assert time.monotonic() - start < 30  # not the sixty seconds of the clock
        assert pool("nap") == "nap"  # longer than the limit, but asleep


def test_calls_of_a_killed_supervisor_are_made_again():
    with WorkerPool(pool_functions.slow_square, 2, timeout_s=30, on_crash="died") as pool:
        assert pool(3) == 9
        threading.Timer(0.3, os.kill, (pool._process.pid, signal.SIGKILL)).start()
        assert pool.map([(x,) for x in range(250)]) == [x * x for x in range(250)]


def test_calls_whose_supervisors_are_all_killed_end_with_a_result_of_their_own():
    with WorkerPool(
        pool_functions.misbehave, 1, timeout_s=60, on_crash="died", on_lost="lost"
    ) as pool:
        assert pool("a") == "a"
        killed = []

        def kill_each():
            while len(killed) < MAX_STARTS:
                pid = pool._process.pid
                if pid not in killed:
                    time.sleep(0.3)
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                time.sleep(0.01)

        killer = threading.Thread(target=kill_each)
        killer.start()
        assert pool.map([("sleep",), ("b",)]) == ["lost", "lost"]
        killer.join()
        assert pool("c") == "c"


def test_closing_leaves_no_process_behind():
    pool = WorkerPool(pool_functions.pid_and_square, 2, timeout_s=10)
    pids = {pid for pid, _ in pool.map([(x,) for x in range(100)])} | {pool._process.pid}
    pool.close()
    time.sleep(0.1)
    assert not any(_alive(pid) for pid in pids)
    with pytest.raises(ValueError, match="closed"):
        pool(1)
    pool.close()  # a second time is harmless


def test_workers_end_with_a_parent_that_is_killed():
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import threading, time\nfrom tests.reasoning.workers import pool_functions\n"
        "from reasoning.workers.pool import WorkerPool\n"
        "pool = WorkerPool(pool_functions.misbehave, 1, timeout_s=60)\n"
        "pool('warm up')\n"
        "threading.Thread(target=pool, args=('loop',), daemon=True).start()\n"
        "print(pool._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    supervisor = int(parent.stdout.readline())
    time.sleep(0.2)
    workers = [pid for pid in _processes() if _parent_of(pid) == supervisor]
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_until(lambda: not any(_alive(pid) for pid in [supervisor, *workers]))


def test_workers_do_not_import_jax_or_the_main_module():
    with WorkerPool(pool_functions.modules_loaded, 1, timeout_s=10) as pool:
        modules = pool()
    assert "tests.reasoning.workers.pool_functions" in modules
    assert not {"jax", "numpy", "pytest"} & set(modules)


def test_workers_share_what_the_warm_up_call_left():
    with WorkerPool(pool_functions.calls_seen, 1, timeout_s=10, warm_up=("warm up",)) as pool:
        assert pool("first") == ["warm up", "first"]


def test_unusable_functions_are_refused():
    with pytest.raises(ValueError, match="a worker cannot import"):
        WorkerPool(lambda x: x, 1, timeout_s=1)
    with pytest.raises(ValueError, match="num_workers"):
        WorkerPool(pool_functions.square, 0, timeout_s=1)


def test_a_module_that_fails_to_import_is_reported(tmp_path, monkeypatch):
    (tmp_path / "breaks_in_worker.py").write_text(
        "import __main__\n"
        "main = getattr(__main__, '__file__', '')\n"
        "if 'supervisor' in main: raise ImportError('needs a flux capacitor')\n"
        "def fn(x): return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import breaks_in_worker

    with WorkerPool(breaks_in_worker.fn, 1, timeout_s=5) as pool:
        with pytest.raises(WorkerError, match="flux capacitor"):
            pool(1)


def test_overhead_is_small():
    with WorkerPool(pool_functions.square, 2, timeout_s=10) as pool:
        pool(1)
        start = time.monotonic()
        pool.map([(x,) for x in range(5000)])
        assert (time.monotonic() - start) / 5000 < 1e-3


def _alive(pid):
    """Whether the process exists and is no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _processes():
    return [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]


def _parent_of(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _wait_until(condition, patience_s=5.0):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
