"""docs/extending.md, followed to the letter: what it adds works, and no rule is broken."""

import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from tests.guides import PAGE, apply, commands, copy_checkout, read_guides

GUIDES = read_guides(PAGE.read_text(encoding="utf-8"))
TITLES = {
    "A reward", "A search method", "A model family", "An RL variant", "A recipe stage", "A task",
}  # fmt: skip
# Commands of another environment: tests/parity/test_family_guide.py runs them.
ELSEWHERE = ".venv-parity/"
# Tests of the project that a new module, name or setting may break.
STANDING = (
    "tests/test_layout.py",
    "tests/launch/schema/test_bad_settings.py::test_the_page_of_settings_is_the_schema",
    "tests/launch/recipe/test_recipe.py::test_every_stage_is_told_of_and_depends_on_what_it_reads",
    "tests/reasoning/tasks/test_tasks.py::test_every_registered_task_can_be_imported",
)
# What the guides promise, looked at from outside: by the names that a user would write.
OUTSIDE = """
import inspect

from launch import recipe
from models.hf.families import get_family
from reasoning.problem import Problem
from reasoning.search.methods import method_entries
from reasoning.tasks import get_task
from rl.rewards import Sample
from rl.rewards.combine import RewardSet
from rl.variants import get_variant


def test_the_rewards_score_completions():
    problem = Problem("tiny_math", "?", "42")
    samples = [Sample("", text, problem, 1) for text in (r"\\boxed{42}", r"\\boxed{42}!", "42!")]
    with RewardSet("boxed=2,my_rewards.py:calm=0.5", num_workers=1) as rewards:
        assert rewards.score(samples).total.tolist() == [2.5, 2.0, 0.0]


def test_the_names_are_known():
    assert get_family("mistral").class_name == "Mistral"
    assert get_variant("lite_ppo").aggregation == "token_mean"
    assert recipe.lineage("averaged") == ["base", "r1_zero", "averaged"]
    task = get_task("letters")
    assert [task.verify(p, p.answer).correct for p in task.problems("test", 3, 0)] == [True] * 3
    arguments = dict.fromkeys(inspect.signature(method_entries).parameters)
    assert "short_majority" in method_entries(**arguments | {"aggregation": "last", "wait": "w"})
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Test file -> (tests that passed, all its tests, faults), where every guide was followed.

    Commands run as written, save that those which several guides have in common run once, and that
    one pytest runs all test files.
    """
    root = copy_checkout(tmp_path_factory.mktemp("checkout"))
    for steps in GUIDES.values():
        apply(steps, root)
    lines = [line for steps in GUIDES.values() for line in commands(steps)]
    lines = [line for line in dict.fromkeys(lines) if not line.startswith(ELSEWHERE)]
    tests = [shlex.split(line)[3:] for line in lines if line.startswith("python -m pytest ")]
    (root / "tests" / "test_outside.py").write_text(OUTSIDE)
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    for line in lines:
        if not line.startswith("python -m pytest "):
            _run(line.replace("python ", f"{shlex.quote(sys.executable)} ", 1), root, environment)
    named = [name for line in tests for name in line]
    _run(
        shlex.join([
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml",
            *named, *STANDING, "tests/test_outside.py",
        ]),
        root,
        environment,
        codes=(0, 1),  # 1 is for tests that failed: the report says which.
    )  # fmt: skip
    report = {}
    for case in ElementTree.parse(root / "report.xml").iter("testcase"):
        name = case.get("classname").replace(".", "/") + ".py"
        passed, count, faults = report.get(name, (0, 0, ""))
        faults += "".join(fault.text or "" for fault in case)
        report[name] = (passed + (len(case) == 0), count + 1, faults)
    return report


def _run(command, root, environment, codes=(0,)):
    done = subprocess.run(
        command, shell=True, cwd=root, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode in codes, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"


def test_there_is_a_guide_for_everything():
    assert set(GUIDES) == TITLES
    for steps in GUIDES.values():
        assert {step.kind for step in steps} == {"python", "diff", "bash"}


@pytest.mark.parametrize("title", GUIDES)
def test_a_guide_followed_to_the_letter_works(followed, title):
    written = [s.file for s in GUIDES[title] if s.kind == "python" and s.file.startswith("tests/")]
    assert written
    for file in written:
        assert re.search(rf"^python -m pytest .*{file}", "\n".join(commands(GUIDES[title])), re.M)
        passed, count, faults = followed[file]
        assert passed == count > 0, f"{file}: {passed} of {count} passed\n{faults}"


def test_what_was_added_is_there_for_a_user(followed):
    assert followed["tests/test_outside.py"] == (2, 2, "")


def test_the_rules_of_the_house_hold_afterwards(followed):
    for name in STANDING:
        passed, count, faults = followed[name.partition("::")[0]]
        assert passed == count > 0, f"{name}\n{faults}"


def test_a_guide_that_has_grown_stale_is_noticed(tmp_path):
    (tmp_path / "table.py").write_text("A = 1\nB = 2\nA = 1\n")
    page = "## X\n\nChange `table.py`:\n\n```diff\n {}\n+C = 3\n```\n"
    for line, count in (("A = 1", 2), ("D = 4", 0), ("= 2", 0)):
        with pytest.raises(ValueError, match=f"table.py has these lines {count} times"):
            apply(read_guides(page.format(line))["X"], tmp_path)
    apply(read_guides(page.format("B = 2"))["X"], tmp_path)
    assert (tmp_path / "table.py").read_text() == "A = 1\nB = 2\nC = 3\nA = 1\n"
    with pytest.raises(ValueError, match="table.py exists already"):
        apply(read_guides("## X\n\nWrite `table.py`:\n\n```python\n```\n")["X"], tmp_path)
    with pytest.raises(ValueError, match="no file is named before"):
        read_guides("## X\n\nWrite it:\n\n```python\nA = 1\n```\n")
