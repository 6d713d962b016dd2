"""A train step on one device equals that on eight, in a process that has eight."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The second halves the time to compile.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"


@pytest.mark.parametrize("objective", ["sft", "grpo"])
def test_eight_devices_train_as_one_does(objective):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("mesh_checks.py"), objective],
        cwd=ROOT,
        env=os.environ
        | {
            "XLA_FLAGS": FLAGS,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
