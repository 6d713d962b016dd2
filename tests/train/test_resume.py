"""kill -9 at a random step, then the same command: the same weights, bit for bit, and one log."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from train.metrics import read_metrics

ROOT = Path(__file__).parents[2]


def train(workdir, *arguments):
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("resume_run.py"), workdir, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            # Halves the time to compile.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = train(whole)
    assert done.returncode == 0, done.stderr[-3000:]

    # The thread that draws is three batches ahead at most, so the save of step 10 has begun, which
    # waits for that of step 5.
    draw = random.randrange(14, 24)
    assert train(killed, draw).returncode == -signal.SIGKILL
    saved = [path.name for path in (killed / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and not (killed / "weights.npz").exists(), f"killed at draw {draw}"
    done = train(killed)
    assert done.returncode == 0, done.stderr[-3000:]

    weights = [np.load(directory / "weights.npz") for directory in (whole, killed)]
    assert set(weights[0]) == set(weights[1])
    for name in weights[0]:
        np.testing.assert_array_equal(*(w[name] for w in weights), f"{name}, draw {draw}")
    logs = [read_metrics(directory) for directory in (whole, killed)]
    for name in ("step", "loss", "grad_norm", "learning_rate"):
        assert [line[name] for line in logs[0]] == [line[name] for line in logs[1]], f"draw {draw}"
