"""A train step on one device equals that on eight, and a run in several processes that in one."""

import os
import shutil
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


def job(processes, workdir, *steps):
    """Runs a job with four devices in so many processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (processes, workdir, *steps)
    jobs = [
        start("several_processes.py", port, rank, *arguments, devices=4 // processes)
        for rank in range(processes)
    ]
    for each in jobs:
        finish(each)


def test_four_processes_train_as_one_does_and_two_go_on_from_their_checkpoint(tmp_path):
    job(4, tmp_path, 3, 6)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    job(2, tmp_path, 4)

    def saved(name, processes):
        found = [np.load(tmp_path / f"{name}_{processes}_{i}.npz") for i in range(processes)]
        for other in found[1:]:
            for key in found[0]:
                np.testing.assert_array_equal(other[key], found[0][key])
        return dict(found[0])

    for key, value in saved("trained3", 4).items():
        np.testing.assert_array_equal(value, saved("restored3", 4)[key])
        np.testing.assert_array_equal(value, saved("restored3", 2)[key])
    for processes, num_steps in ((2, 4), (4, 6)):
        state, step, source = parts(num_steps=6)
        params = run(state, step, source, num_steps=num_steps).state.params
        found = saved(f"trained{num_steps}", processes)
        params = flatten_dict(params, sep="/")
        assert found.keys() == params.keys()
        for name in params:
            # Adam divides by what may be small, hence the tolerance.
            np.testing.assert_allclose(found[name], params[name], rtol=0, atol=1e-5)
    # One of them writes; the second job has replaced the lines after its checkpoint.
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
