"""A train step on one device equals that on eight, and a run in two processes that in one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.train.bigram import parts
from train.loop import run
from train.metrics import read_metrics

ROOT = Path(__file__).parents[2]


def start(script, *arguments, devices):
    # The second flag halves the time to compile.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name(script), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]


@pytest.mark.parametrize(
    "objective", ["sft", "experts", "grpo", "distillation", "top_distillation"]
)
def test_eight_devices_train_as_one_does(objective):
    finish(start("mesh_checks.py", objective, devices=8))


def test_two_processes_train_and_resume_as_one_does(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = [start("two_processes.py", port, rank, tmp_path, devices=1) for rank in range(2)]
    for process in both:
        finish(process)

    state, step, source = parts(num_steps=6)
    params = flatten_dict(run(state, step, source, num_steps=6).state.params, sep="/")
    for rank in range(2):
        weights = np.load(tmp_path / f"weights{rank}.npz")
        assert set(weights) == set(params)
        for name in params:
            # Adam divides by what may be small, hence the tolerance.
            np.testing.assert_allclose(weights[name], params[name], rtol=0, atol=1e-5)
    # One of them writes.
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
