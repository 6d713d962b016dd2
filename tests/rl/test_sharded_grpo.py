"""RL on eight devices is RL on one, in a process that has eight.

`tests/train/test_meshes.py` compares GRPO updates with given batches on the same meshes; this is
what comes before the update.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    # Each program runs a few times only: compiling costs more.
    "--xla_backend_optimization_level=0",
)


@pytest.fixture(scope="module")
def meshes():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("mesh_rollouts.py")],
        cwd=ROOT,
        env=os.environ
        | {"XLA_FLAGS": " ".join(FLAGS), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == 4
    return reports


def test_the_sampler_draws_the_same_tokens_on_every_mesh(meshes):
    for mesh in meshes:
        assert mesh["greedy"], f"greedy tokens differ on {mesh}"
        # The draws, too, are of the key, the prompt and the sample alone, whatever the mesh.
        assert mesh["sampled"], f"sampled tokens differ on {mesh}"
        assert mesh["logprobs"] < 1e-5, mesh


def test_weights_are_copied_once_per_rollout_and_only_where_fsdp_splits_them(meshes):
    for mesh in meshes:
        copies, axes, programs = mesh["copies"]
        split = mesh["mesh"].get("fsdp", 1) > 1
        # Two sets of parameters; without a copy, the first of them counts as its own.
        assert copies == (2 if split else 1), mesh
        assert axes == (["tensor"] if mesh["mesh"].get("tensor", 1) > 1 else []), mesh
        assert programs == (1 if split else 0), mesh


def test_a_grpo_iteration_is_the_same_split_along_all_axes(meshes):
    """Differences of sums in another order: log-probs are of size 5, parameters move by 0.9."""
    mesh = meshes[-1]
    assert mesh["mesh"] == {"fsdp": 2, "context": 2, "tensor": 2}
    assert mesh["shard"] == [2, 8, 16], "the MLP was to be split over fsdp and tensor"
    assert mesh["batch"] < 1e-5, mesh
    assert mesh["state"] < 2e-6, mesh
    assert mesh["metrics"] < 2e-4, mesh
