"""The notebooks: the files agree with their texts, and their code runs at test scale."""

import importlib.util
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
build = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(build)
TEXTS = build.texts()
each_notebook = pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(text):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def test_every_ipynb_has_a_text():
    assert {each.with_suffix(".ipynb") for each in TEXTS} == set(build.HERE.glob("*.ipynb"))


@each_notebook
def test_the_file_is_that_of_its_text_and_keeps_no_outputs(text):
    assert read(text) == build.build(text), "run `make notebooks`"
    assert all(not cell.outputs and not cell.execution_count for cell in code_cells(read(text)))


@each_notebook
def test_badges_stand_first_and_cells_are_short(text):
    notebook = read(text)
    for site in ("colab.research.google.com", "kaggle.com"):
        assert site in notebook.cells[0].source
    assert all(len(cell.source.splitlines()) <= 20 for cell in code_cells(notebook))


@each_notebook
def test_it_runs(text, tmp_path, monkeypatch):
    monkeypatch.setenv("ERGO_NOTEBOOK_SCALE", "test")
    monkeypatch.setenv("ERGO_NOTEBOOK_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT)]))
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    notebook = read(text)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert "wrong" in str(shown) or "right" in str(shown)
