"""`run_rl` one iteration off policy: which iterations are stale, and a resume at a checkpoint."""

import shutil

import jax
import numpy as np

from launch import run_rl
from models.checkpoint import load_model
from tests.launch.test_run_rl import _config, _records, files  # noqa: F401

STALE = {
    "staleness": 1, "recompute_old": True, "loss.tis_cap": 2.0, "checkpoint_every": 2,
    "evaluation.tasks.math": "", "steps": 4,
}  # fmt: skip


def weights(workdir):
    return [np.asarray(x) for x in jax.tree.leaves(load_model(workdir / "rl" / "hf").params)]


def test_every_second_iteration_is_stale_and_a_resumed_run_ends_with_the_same_weights(
    files,  # noqa: F811
    tmp_path,
):
    run_rl.run(_config(files, **STALE), tmp_path / "whole")
    lines = _records(tmp_path / "whole" / "rl" / "metrics.jsonl")
    assert [line["stale"] for line in lines] == [0, 1, 0, 1]
    # Fresh rollouts agree with the trainer; older weights differ, and the correction sees it.
    gaps = [line["first_sampler_gap_max"] for line in lines]
    assert max(gaps[0], gaps[2]) < 1e-3 < min(gaps[1], gaps[3])
    assert lines[1]["tis_weight"] != 1.0

    # As if it had been killed after the checkpoint of step 2.
    workdir = tmp_path / "resumed"
    shutil.copytree(tmp_path / "whole", workdir)
    shutil.rmtree(workdir / "rl" / "checkpoints" / "4")
    shutil.rmtree(workdir / "rl" / "hf")
    (workdir / "rl" / "result.json").unlink()
    run_rl.run(_config(files, **STALE), workdir)
    for one, other in zip(weights(workdir), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)
