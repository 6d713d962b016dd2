"""The notebooks: the files agree with their texts, and their code runs at test scale."""

import dataclasses
import importlib.util
from pathlib import Path

import nbformat
import pytest

from configs import notebooks
from launch import schema
from launch.jobs.training import supervised
from launch.parts import stages
from launch.recipe import runner, world
from launch.schema.tiny import TinyConfig
from reasoning.prompts import get_template
from reasoning.response import tagged

# Copies of each solution in the corpus of the model that learns them by heart.
COPIES = 200
ROOT = Path(__file__).parents[2]
# Lines of a cell, and bytes of a rendered notebook.
LONGEST, LARGEST = 15, 700_000


def _load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "notebooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, render = _load("build"), _load("render")
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
    assert all(len(cell.source.splitlines()) <= LONGEST for cell in code_cells(notebook))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder whose base model knows the answers to the training problems by heart.

    An untrained model gets nothing right, and then there is nothing to distil or to keep.
    """
    directory = tmp_path_factory.mktemp("notebooks")
    config = schema.load(TinyConfig, notebooks.get_config("test"))
    (work,) = world.open_workspaces(config, directory, 1)

    def learn(directory):
        texts = worked_solutions(work)
        pretrain = dataclasses.replace(config.pretrain, documents=len(texts))
        params = supervised.pretrain(work, texts, pretrain, directory)
        return stages.publish(work, directory, params)

    stages.run_stage(work, "base", runner.settings_of(work, "base"), learn)
    return directory


def worked_solutions(work):
    """Right and readable responses to all training problems, in many copies."""
    config, template = work.config, get_template(work.config.template, work.tokenizer)
    asked = (
        config.cold_start.problems, config.rejection_sft.reasoning.problems,
        config.rejection_sft.general.problems, config.distill.problems,
    )  # fmt: skip
    texts = {}
    for problem in (each for counts in asked for each in world.training_problems(work, counts)):
        if problem.task == "tiny_chat":
            solution = tagged([], problem.answer)
        else:
            ((_, solution),) = world.world_of(config).solved([problem])
        texts[problem.question] = template(problem.question) + solution
    return COPIES * list(texts.values())


@each_notebook
def test_it_runs(text, workdir, monkeypatch):
    monkeypatch.setenv("ERGO_NOTEBOOK_SCALE", "test")
    monkeypatch.setenv("ERGO_NOTEBOOK_DIR", str(workdir))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    notebook = render.execute(text.with_suffix(".ipynb"), timeout=300)
    shown = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output.get("name") == "stderr" and "Error" in output.text for output in shown)


@pytest.mark.parametrize(
    "path", sorted(render.RENDERED.glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_rendered_copy_is_small_and_of_its_notebook(path):
    rendered, notebook = (nbformat.read(p, as_version=4) for p in (path, build.HERE / path.name))
    assert path.stat().st_size < LARGEST
    assert [cell.source for cell in rendered.cells] == [cell.source for cell in notebook.cells]
    numbers = [cell.execution_count for cell in code_cells(rendered)]
    assert numbers == list(range(1, len(numbers) + 1)), "a cell was not executed in its turn"
    assert str(ROOT.parent) not in path.read_text(), "an output names a folder of some machine"


def test_a_rendered_copy_does_not_name_this_machine():
    outputs = [
        nbformat.v4.new_output("stream", name=name, text=f"{build.HERE.parent}/runs/x {name}")
        for name in ("stdout", "stderr")
    ]
    cell = nbformat.v4.new_code_cell("run()", outputs=outputs)
    cells = [nbformat.v4.new_markdown_cell("Run it."), cell]
    found = render.without_places(nbformat.v4.new_notebook(cells=cells))
    assert [output.text for output in found.cells[1].outputs] == ["runs/x stdout"]
    for path in render.RENDERED.glob("*.ipynb"):
        shown = path.read_text(encoding="utf-8")
        assert str(build.HERE.parent) not in shown and '"stderr"' not in shown, path
