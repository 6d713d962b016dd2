"""Search with trained verifiers on a random checkpoint as it is, without any other stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

from configs import small
from launch.run_make_checkpoint import make_checkpoint
from reasoning.tasks import get_task

ROOT = Path(__file__).parents[2]
WANTED = {"direct", "cot", "majority", "weighted_majority", "beam", "lookahead", "adaptive"}


def test_every_method_searches_with_a_checkpoint_and_its_own_verifiers(tmp_path):
    problems = get_task(small.SUMS).problems("train", 30, 0)
    make_checkpoint(
        tmp_path / "made", problems, well_formed=0.5, vocab_size=400, width=16, layers=1, seed=0
    )
    line = [
        sys.executable, "-m", "launch.run_search", "--config=configs/small.py:smoke",
        f"--config.model={tmp_path / 'made' / 'model'}", "--config.reasoner=base",
        f"--config.search.task={small.SUMS}", "--config.verifiers.row_length=384",
        "--config.search.max_new_tokens=12", "--config.search.typical_tokens=8",
        "--config.search.step_tokens=6", "--config.search.problems=2",
        "--config.search.calibration=2", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "run" / "seed_0"
    assert {path.name for path in folder.iterdir()} == {"base", "verifiers", "search"}
    report = json.loads((folder / "search" / "report.json").read_text())
    methods = {record["method"] for record in report["search"]}
    assert methods >= WANTED and not any(name.startswith("prompt_") for name in methods)
    assert all(record["accuracy"]["n"] == 2 for record in report["search"])
    assert report["verifiers"]["labels"]["solutions"] == 4 * len(small.TRAINED) * 2
    assert (folder / "verifiers" / "outcome" / "hf" / "config.json").exists()
