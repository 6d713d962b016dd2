"""Tests the tasks of the tiny world: problems, extraction of answers, and verdicts."""

import pytest

from reasoning.problem import Problem
from reasoning.tasks import get_task
from reasoning.tiny_world import domains


@pytest.mark.parametrize("name", domains.DRAW)
def test_every_reference_is_right_and_nothing_is_not(name):
    task = get_task(name)
    problems = task.problems("test", 16, seed=0)
    assert len(problems) == 16 and all(p.task == name for p in problems)
    verdicts = task.verify_all(problems, [p.answer for p in problems])
    assert all(v.correct and v.reason for v in verdicts), verdicts
    assert not any(v.correct for v in task.verify_all(problems, [""] * 16))
    # A neighbour's answer is right by chance at most.
    shifted = task.verify_all(problems, [p.answer for p in problems[1:] + problems[:1]])
    assert sum(v.correct for v in shifted) <= 8
    assert all(v.reason for v in shifted)


def test_code_is_judged_by_its_values():
    """((a - 2) * b): by another road, with another name for it, and wrong in one place."""
    task = get_task("tiny_code")
    problem = Problem(
        "tiny_code", "", "((a - 2) * b)", {"start": "a", "operations": [["-", "2"], ["*", "b"]]}
    )
    answers = {
        "a*b - 2*b": True,
        "b * (-2 + a)": True,
        "a - 2 * b": False,
        "(a - 2) * c": False,
        "lambda: (a - 2) * b": False,
        "((a - 2) * b": False,
        "__import__('os').getpid()": False,
        "exit()": False,
    }
    verdicts = task.verify_all([problem] * len(answers), list(answers))
    assert [v.correct for v in verdicts] == list(answers.values()), verdicts


def test_equal_programs_are_run_once_and_judged_each(monkeypatch):
    from reasoning.tasks import tiny

    task, ran = get_task("tiny_code"), []
    first, second = task.problems("train", 2, 0)
    run = tiny._runner().run_tests_batch
    monkeypatch.setattr(
        tiny._runner(), "run_tests_batch", lambda jobs: ran.append(len(jobs)) or run(jobs)
    )
    problems = [first, second, first, second, first]
    answers = [first.answer, first.answer, first.answer, second.answer, "a +"]
    verdicts = task.verify_all(problems, answers)
    assert [v.correct for v in verdicts] == [True, False, True, True, False]
    assert ran == [4]


@pytest.mark.parametrize("level, seed", [(1, 0), (3, 1)])
def test_code_references_have_the_values_that_python_gives_them(level, seed):
    """The verifier's expected values come from the metadata; here they come from the reference."""
    from reasoning.tasks.tiny import _VALUES, _expected

    for problem in get_task(f"tiny_code?low={level}&high={level}").problems("train", 20, seed):
        for values, test in zip(_VALUES, _expected(problem), strict=True):
            assert test.expected == eval(problem.answer, {}, dict(values))


def test_words_are_compared_without_case_and_full_stop():
    task = get_task("tiny_knowledge")
    problem = Problem("tiny_knowledge", "", "Lima")
    answers = {" lima.": True, "LIMA": True, "Lim": False, "Lima, Peru": False, ".": False}
    verdicts = task.verify_all([problem] * len(answers), list(answers))
    assert [v.correct for v in verdicts] == list(answers.values())


@pytest.mark.parametrize(
    "response, answer",
    [
        (" <think>\n 1 and 2 makes 3\n</think><answer> 3</answer>", "3"),
        (" 3", "3"),
        (" 1 and 2 makes 3\n so 3", "3"),
        (" 1 und 2 macht 3\n somit 3", "3"),
        (" add 2 gives (a + 2)\n so (a + 2)\n", "(a + 2)"),
        (" <think>\n so 4\n</think> 3", "3"),
        ("", None),
        (" <think>\n so 4\n", None),
    ],
)
def test_the_answer_is_found_tagged_or_not(response, answer):
    found = get_task("tiny_code").extract(response)
    assert (found or "").strip() == (answer or "")


def test_levels_by_spec():
    problems = get_task("tiny_math?low=8&high=9").problems("test", 20, seed=0)
    assert {len(p.metadata["terms"]) for p in problems} == {8, 9}
    # A problem names the task that verifies it, whatever its levels.
    assert get_task(problems[0].task).verify(problems[0], problems[0].answer).correct


@pytest.mark.parametrize(
    "spec, fault",
    [
        ("tiny_math?low=9&high=3", "low=9 to high=3"),
        ("tiny_math?low=0", "low=0"),
        ("tiny_math?low=two", "low=two"),
        ("tiny_math?level=3", "level"),
    ],
)
def test_bad_levels(spec, fault):
    with pytest.raises(ValueError, match=fault) as error:
        get_task(spec)
    assert spec in str(error.value) and "\n" not in str(error.value)


def test_problems_that_are_not_there():
    with pytest.raises(ValueError, match="has 0 test problems, but 5 are requested"):
        get_task("tiny_math?low=2&high=3").problems("test", 5, 0)
    with pytest.raises(ValueError, match="makes problems without end: give a count"):
        get_task("tiny_math").problems("train", None, 0)
    with pytest.raises(ValueError, match="split='dev' is unknown"):
        get_task("tiny_math").problems("dev", 5, 0)
    facts = get_task("tiny_knowledge").problems("train", None, 0)
    with pytest.raises(
        ValueError, match=f"has {len(facts)} train problems, but 1000 are requested"
    ):
        get_task("tiny_knowledge").problems("train", 1000, 0)
