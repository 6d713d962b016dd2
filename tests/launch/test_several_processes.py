"""Jobs of two real processes: equal weights, each reward computed once, one process that writes."""

import pytest

from tests.launch import several_processes as jobs
from tests.launch.kill_and_resume import make_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    make_tiny(folder)
    return folder


def test_rl_of_two_processes_equals_that_of_one(folder):
    found = {}
    for processes in (1, 2):
        workdir, calls = folder / f"rl{processes}", folder / f"calls{processes}.txt"
        command = jobs.rl(folder, calls, **{"evaluation.tasks.math": ""})
        jobs.train(folder, command, workdir, processes, devices=2)
        assert sum(jobs.count_calls(calls).values()) == jobs.expected_calls(processes, evaluated=0)
        assert not jobs.written_by_others(workdir, processes)
        found[processes] = jobs.weights(workdir, "rl")
        assert [line["step"] for line in jobs.metrics(workdir, "rl")] == [1, 2, 3]
    # The mesh is the same, and a sum of two has one order.
    assert jobs.largest_difference(found[1], found[2]) == 0


def test_a_reward_that_differs_by_process_stops_all_with_the_reason(folder):
    reward = folder / "differs.py"
    reward.write_text(
        "import os\n"
        "def differs(prompt, completion, problem):\n"
        "    return float(os.environ['JAX_PROCESS_ID'])\n"
    )
    command = jobs.rl(folder, folder / "unused.txt", rewards=f"{reward}:differs")
    workdir = folder / "differs"
    assert jobs.finish(jobs.start(folder, command, workdir, 2, 2), timeout=60) == [1, 1]
    for rank in range(2):
        told = jobs.log_of(workdir, rank).read_text()
        assert "error: the rewards of a trial completion differ between the processes" in told
        assert "Traceback" not in told
