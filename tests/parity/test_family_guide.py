"""The guide to a model family in docs/extending.md, its commands against transformers included."""

import os
import shlex
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.guides import PAGE, apply, commands, copy_checkout, read_guides  # noqa: E402


def test_the_added_family_has_the_logits_of_transformers(tmp_path):
    steps = read_guides(PAGE.read_text(encoding="utf-8"))["A model family"]
    root = copy_checkout(tmp_path / "checkout")
    apply(steps, root)
    lines = [line for line in commands(steps) if line.startswith(".venv-parity/bin/python ")]
    assert len(lines) == 2
    for line in lines:
        command = line.replace(".venv-parity/bin/python", shlex.quote(sys.executable), 1)
        done = subprocess.run(
            command,
            shell=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    made = {path.name for path in (root / "tests" / "models" / "golden").glob("mistral*")}
    assert made == {"mistral", "mistral_tied"}
