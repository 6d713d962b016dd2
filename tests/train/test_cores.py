"""A seed gives the same weights on any number of cores if XLA is told how many threads to use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def weights(cores, threads=None):
    """A hash of the weights that a run on `cores` visible cores ends with."""
    env = {k: v for k, v in os.environ.items() if k != "NPROC"} | {"PYTHONPATH": str(ROOT)}
    if threads is not None:
        env["NPROC"] = str(threads)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("core_run.py"), str(cores)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores and a system that lets a process choose among them",
)
def test_weights_depend_on_xlas_threads_and_not_on_the_visible_cores():
    """XLA divides long sums among its threads, as many as there are cores unless NPROC says so."""
    one, two = weights(1), weights(2)
    assert weights(1, threads=2) == two
    assert weights(2, threads=1) == one
