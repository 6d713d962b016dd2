"""The main job on a world of seconds: what it leaves, what it does again, and what it refuses."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from reasoning.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]
STEPS, CHECKPOINT_EVERY = 8, 2
# Smaller than the smoke config, to compile faster; its rewards are always 0, which trains nothing.
SMALLER = (
    "--config.model.num_layers=1",
    "--config.model.scan_unroll=1",
    "--config.pretrain.documents=700",
    "--config.evaluation.problems=4",
    f"--config.r1_zero.steps={STEPS}",
    f"--config.r1_zero.checkpoint_every={CHECKPOINT_EVERY}",
    "--config.r1_zero.sample_every=4",
)
REWARD = """
import time

def spread(prompt, completion, problem):
    time.sleep(0.01)  # Gives a kill a step to hit.
    return sum(completion.encode()) % 7 / 6
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """(workdir, *flags) -> the command line; and its environment, with compilations kept."""
    directory = tmp_path_factory.mktemp("r1")
    reward = directory / "my_rewards.py"
    reward.write_text(REWARD)
    rewards = f"--config.r1_zero.rewards=format=0.2,{reward}:spread"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(directory / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }

    def arguments(workdir, *flags):
        line = [sys.executable, "-m", "launch.run_r1", "--config=configs/tiny.py:smoke"]
        # The others train on what a model gets right, and this one gets nothing right.
        line.append("--stages=base,r1_zero")
        return [*line, f"--workdir={workdir}", *SMALLER, rewards, *flags], environment

    return arguments


def run(command, workdir, *flags):
    line, environment = command(workdir, *flags)
    return subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def smoke(command, tmp_path_factory):
    """A complete run: its directory and what it printed."""
    workdir = tmp_path_factory.mktemp("whole")
    done = run(command, workdir)
    assert done.returncode == 0, done.stderr[-3000:]
    return workdir, done


@pytest.fixture
def copy(smoke, tmp_path):
    return Path(shutil.copytree(smoke[0], tmp_path / "copy"))


def lines(path):
    return [record for _, record in read_jsonl(path)]


def state_of(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def weights(workdir, stage="r1_zero"):
    return load_file(workdir / "seed_0" / stage / "hf" / "model.safetensors")


def test_the_report_has_the_contracts_fields(smoke):
    workdir, done = smoke
    report = json.loads((workdir / "report.json").read_text())
    fields = {"config", "seeds", "wall_seconds", "stages", "findings", "claims", "machine"}
    assert set(report) == fields
    # One seed has no interval over seeds, so it decides nothing.
    assert [(each["claim"], each["verdict"]) for each in report["claims"]] == [
        ("F1", "open"), ("F7", "open"),
    ]  # fmt: skip
    machine = report["machine"]
    assert machine["cores"] >= 1 and machine["processor"]
    assert report["seeds"] == 1 and report["config"]["model"]["num_layers"] == 1
    assert list(report["stages"]) == ["base", "r1_zero"]
    figures = {
        "math/pass@1", "code/pass@1", "logic/pass@1", "knowledge/accuracy", "chat/win_rate",
        "format", "language_consistency", "self_checks", "response_tokens",
        *(f"{domain}/format" for domain in ("math", "code", "logic", "knowledge", "chat")),
    }  # fmt: skip
    votes = {f"{domain}/{what}@4" for domain in ("math", "logic") for what in ("majority", "pass")}
    for name, stage in report["stages"].items():
        # A stage has `warnings` only if its training gave some.
        assert set(stage) - {"warnings"} == {"wall_seconds", "metrics"}
        assert 0 < stage["wall_seconds"]
        assert set(stage["metrics"]) == figures | (votes if name == "r1_zero" else set())
        for name, figure in stage["metrics"].items():
            assert set(figure) == {"mean", "ci95", "n", "seeds"}
            low, high = figure["ci95"]
            assert low <= figure["mean"] <= high and figure["n"] >= 4 and figure["seeds"] == 1
            assert name == "response_tokens" or 0 <= low < high <= 1
    assert sum(s["wall_seconds"] for s in report["stages"].values()) <= report["wall_seconds"]
    for name in ("math/pass@1 (%)", "response_tokens", "r1_zero", str(workdir / "report.json")):
        assert name in done.stdout


def test_everything_is_written(smoke):
    workdir, done = smoke
    page = (workdir / "report.html").read_text()
    assert f"page: {workdir / 'report.html'}" in done.stdout
    assert "python -m launch.run_r1 --config=" in page and "Where the time went" in page
    assert (workdir / "r1_zero.png").read_bytes().startswith(b"\x89PNG")
    assert set(json.loads((workdir / "samples.json").read_text())) == {"base", "r1_zero"}
    for stage in ("base", "r1_zero"):
        directory = workdir / "seed_0" / stage
        graded = lines(directory / "graded.jsonl")
        report = json.loads((workdir / "report.json").read_text())["stages"][stage]["metrics"]
        of_math = [r["correct"] for r in graded if r["task"] == "tiny_math"]
        assert len(of_math) == 4 and np.mean(of_math) == report["math/pass@1"]["mean"]
        assert np.mean([r["well_formed"] for r in graded]) == report["format"]["mean"]
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (directory / "hf" / name).stat().st_size
        assert list((directory / "tensorboard").iterdir())
    assert {r["step"] for r in lines(workdir / "seed_0/r1_zero/samples.jsonl")} == {4, 8}
    metrics = lines(workdir / "seed_0/r1_zero/metrics.jsonl")
    assert [r["step"] for r in metrics] == list(range(1, STEPS + 1))
    assert {
        "reward", "format", "spread", "response_tokens", "truncated", "entropy", "grad_norm",
        "clip_high", "clip_low", "ratio", "old_kl", "zero_advantage_groups", "learning_rate",
        "seconds/sample", "seconds/reward", "seconds/train", "tokens_per_second/sample",
        "tokens_per_second/train",
    } <= set(metrics[0])  # fmt: skip


def test_both_stages_trained(smoke):
    workdir, _ = smoke
    losses = [r["loss"] for r in lines(workdir / "seed_0/base/metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.1
    before, after = weights(workdir, "base"), weights(workdir)
    assert before.keys() == after.keys()
    assert all(np.abs(before[name] - after[name]).max() > 1e-4 for name in before)


def test_sampler_and_trainer_agree_in_the_job(smoke):
    for record in lines(smoke[0] / "seed_0/r1_zero/metrics.jsonl"):
        assert record["ratio"] == pytest.approx(1, abs=1e-4) and record["clip_high"] == 0


def test_complete_stages_are_not_run_again(command, copy):
    before = state_of(copy / "seed_0")
    done = run(command, copy)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"(\w+): complete, taken from", done.stdout) == ["base", "r1_zero"]
    assert state_of(copy / "seed_0") == before


def test_a_killed_run_ends_as_if_it_had_not_been(command, smoke, copy):
    """kill -9 at a random moment of RL, then the same command; bit for bit, and one log."""
    whole, directory = smoke[0] / "seed_0/r1_zero", copy / "seed_0/r1_zero"
    shutil.rmtree(directory)
    # A checkpoint is complete when the next one is begun.
    step = random.randrange(2 * CHECKPOINT_EVERY + 1, STEPS)
    delay = random.uniform(0, 0.2)
    at = f"killed {delay:.3f} s after step {step}"
    line, environment = command(copy, "--stages=r1_zero")
    with subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        metrics = directory / "metrics.jsonl"
        while process.poll() is None and (
            not metrics.exists() or metrics.read_bytes().count(b"\n") < step
        ):
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
    assert process.returncode == -signal.SIGKILL, f"it had ended before; {at}"
    assert not (directory / "result.json").exists(), at
    # The one it was saving when it was killed ends in "-tmp", and does not count.
    names = [path.name for path in (directory / "checkpoints").iterdir()]
    saved = [int(name) for name in names if name.isdigit()]
    assert saved, at

    done = run(command, copy, "--stages=r1_zero")
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = weights(smoke[0]), weights(copy)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], f"{name}; {at}")
    logs = [lines(path / "metrics.jsonl") for path in (whole, directory)]
    assert [r["step"] for r in logs[1]] == list(range(1, STEPS + 1)), at
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            timed = name.startswith(("seconds/", "tokens_per_second/"))
            assert timed or one[name] == other[name], f"{name} at step {one['step']}; {at}"
    assert lines(whole / "samples.jsonl") == lines(directory / "samples.jsonl"), at
    assert lines(whole / "graded.jsonl") == lines(directory / "graded.jsonl"), at


def fails(command, workdir, *flags):
    """The one line that a run fails with."""
    done = run(command, workdir, *flags)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr[-3000:]
    return errors[0]


def test_a_changed_config_runs_what_depends_on_it(command, copy):
    """Another RL: the base stays, the old RL is set aside."""
    base, old = state_of(copy / "seed_0/base"), weights(copy)
    done = run(command, copy, f"--config.r1_zero.steps={STEPS - 5}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"(\w+): complete, taken from", done.stdout) == ["base"]
    assert state_of(copy / "seed_0/base") == base
    assert len(lines(copy / "seed_0/r1_zero/metrics.jsonl")) == STEPS - 5
    aside = load_file(copy / "seed_0/stale/r1_zero_1/hf/model.safetensors")
    assert all((aside[name] == old[name]).all() for name in old)


def test_another_evaluation_trains_nothing(command, copy):
    before = {stage: weights(copy, stage) for stage in ("base", "r1_zero")}
    logs = {stage: lines(copy / "seed_0" / stage / "metrics.jsonl") for stage in before}
    done = run(command, copy, "--config.evaluation.problems=6")
    assert done.returncode == 0 and "complete" not in done.stdout, done.stderr[-3000:]
    report = json.loads((copy / "report.json").read_text())
    for stage, old in before.items():
        assert report["stages"][stage]["metrics"]["math/pass@1"]["n"] == 6
        assert all((weights(copy, stage)[name] == old[name]).all() for name in old)
        assert lines(copy / "seed_0" / stage / "metrics.jsonl") == logs[stage]
    assert not (copy / "seed_0/stale").exists()


def test_an_input_of_another_config_is_refused(command, smoke):
    def results():
        # The record of commands, and the page that shows it, have the refused command too.
        noted = {smoke[0] / name for name in ("run.json", "report.html")}
        return {path: at for path, at in state_of(smoke[0]).items() if path not in noted}

    before = results()
    error = fails(command, smoke[0], "--config.pretrain.documents=701", "--stages=r1_zero")
    assert "base is of another config" in error and "(--stages=base)" in error
    assert results() == before


@pytest.mark.parametrize(
    "flags, fault",
    [
        (["--stages=base,r2"], "--stages=r2 is unknown; choose from base, r1_zero"),
        (["--stages=r1_zero"], r"does not exist: run the stage base first \(--stages=base\)"),
        (["--config.r1_zero.stepz=9"], "no field .*stepz"),
    ],
)
def test_bad_flags_are_one_line(command, tmp_path, flags, fault):
    assert re.search(fault, fails(command, tmp_path, *flags))
    assert not (tmp_path / "report.json").exists()
