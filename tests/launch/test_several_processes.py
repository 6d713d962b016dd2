"""Jobs of two real processes: equal weights, each reward computed once, one process that writes.

Also with a SIGTERM to one of them in the middle of a rollout.
"""

import time

import pytest

from launch.parts.endings import RUN_AGAIN
from models.decoding.samples import Samples
from tests.launch import several_processes as jobs
from tests.launch.kill_and_resume import make_tiny

GRACE = 60
# Sampling can stop after every fifth token: two prompts at a time, four in all. A stretch takes so
# long that the processes can agree.
STRETCHES = """
import time
from models.decoding import sampler
from models.host import interruption
sampler.STRETCH, interruption.SECONDS_BETWEEN_LOOKS = 5, 0.01
at_once = interruption.Stops.here
def slow(self):
    time.sleep(0.3)
    return at_once(self)
interruption.Stops.here = slow
"""
# Sends this process a SIGTERM in the second step's rollout, before its first prompts are finished.
SIGTERM = """
import os, signal, sys, time
from models.host import interruption
from rl.rollouts import RolloutSampler
generate, here, rollouts = RolloutSampler.generate, interruption.Stops.here, []
def counted(self, *arguments):
    rollouts.append(0)
    return generate(self, *arguments)
def killed(self):
    stops = here(self)
    if rollouts:
        rollouts[-1] += 1
        if len(rollouts) == 2 and rollouts[-1] == 2:
            print("SIGTERM at", time.time(), file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
    return stops
RolloutSampler.generate, interruption.Stops.here = counted, killed
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    make_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder):
    """One process with two devices."""
    return _train(folder, 1)


def _command(folder, calls, **changes):
    changes = {"evaluation.tasks.math": "", "sampler_rows": 8, "evaluate_every": 100} | changes
    return jobs.rl(folder, calls, **changes)


def _train(folder, processes):
    workdir, calls = folder / f"rl{processes}", folder / f"calls{processes}.txt"
    jobs.train(folder, _command(folder, calls), workdir, processes, devices=2)
    assert sum(jobs.count_calls(calls).values()) == jobs.expected_calls(processes, evaluated=0)
    assert not jobs.written_by_others(workdir, processes)
    assert [line["step"] for line in jobs.metrics(workdir, "rl")] == [1, 2, 3]
    return workdir


def test_rl_of_two_processes_with_a_sigterm_in_a_rollout_equals_that_of_one(folder, undisturbed):
    workdir, calls = folder / "rl2", folder / "calls2.txt"
    command = (*_command(folder, calls), f"--grace={GRACE}")
    variables = [{"RUN_FIRST": STRETCHES}, {"RUN_FIRST": STRETCHES + SIGTERM}]
    codes = jobs.finish(jobs.start(folder, command, workdir, 2, 2, variables))
    ended = time.time()
    logs = [jobs.log_of(workdir, rank).read_text() for rank in range(2)]
    assert codes == [RUN_AGAIN, RUN_AGAIN], logs
    killed = float(logs[1].partition("SIGTERM at")[2].split()[0])
    assert ended - killed < GRACE
    for log in logs:
        assert f"SIGTERM: stopping all processes, within {GRACE} s" in log
        assert "interrupted: SIGTERM after step 1" in log and "Traceback" not in log
    (kept,) = (workdir / "rl/rollout").iterdir()
    assert kept.name == "step_1_draw_1.npz"
    finished = Samples.from_bytes(kept.read_bytes()).finished
    assert 0 < finished.sum() < finished.size
    # No reward was computed for the rollout that was stopped.
    per_start = jobs.expected_calls(2, evaluated=0) - jobs.STEPS * finished.size
    assert sum(jobs.count_calls(calls).values()) == per_start + finished.size

    jobs.train(folder, command, workdir, 2, devices=2)
    assert not (workdir / "rl/rollout").exists()
    made = sum(jobs.count_calls(calls).values())
    assert made == 2 * per_start + jobs.STEPS * finished.size
    assert not jobs.written_by_others(workdir, 2)
    # The mesh is the same, and a sum of two has one order.
    assert (
        jobs.largest_difference(jobs.weights(workdir, "rl"), jobs.weights(undisturbed, "rl")) == 0
    )
    for name in ("metrics.jsonl", "samples.jsonl"):
        lines = [jobs.records(each / "rl" / name) for each in (workdir, undisturbed)]
        assert lines[0] == lines[1] and lines[0]


def test_a_reward_that_differs_by_process_stops_all_with_the_reason(folder):
    reward = folder / "differs.py"
    reward.write_text(
        "import os\n"
        "def differs(prompt, completion, problem):\n"
        "    return float(os.environ['JAX_PROCESS_ID'])\n"
    )
    command = _command(folder, folder / "unused.txt", rewards=f"{reward}:differs")
    workdir = folder / "differs"
    assert jobs.finish(jobs.start(folder, command, workdir, 2, 2), timeout=60) == [1, 1]
    for rank in range(2):
        told = jobs.log_of(workdir, rank).read_text()
        assert "error: the rewards of a trial completion differ between the processes" in told
        assert "Traceback" not in told
