"""The probes of facts and small talk: their splits, and what counts as right."""

import pytest

from reasoning.tasks import get_task
from reasoning.tasks.probes import FACTS, SMALL_TALK, TESTED, TESTED_TALK


@pytest.mark.parametrize(
    ("name", "listed", "tested"),
    [("facts", FACTS, TESTED), ("small_talk", SMALL_TALK, TESTED_TALK)],
)
def test_the_test_questions_are_fixed_and_no_training_question(name, listed, tested):
    task = get_task(name)
    asked = [p.question for p in task.problems("test", None, 0)]
    assert asked == [p.question for p in task.problems("test", None, 7)] and len(asked) == tested
    trained = {p.question for p in task.problems("train", None, 0)}
    assert len(trained) >= 15 and trained.isdisjoint(asked)
    assert trained | set(asked) == set(listed)
    with pytest.raises(ValueError, match=f"{name}, split train, has"):
        task.problems("train", 1000, 0)


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("paris", "The capital of France is Paris.", True),
        ("paris", "PARIS", True),
        ("paris", "I do not know.\nPerhaps Paris.", False),
        ("paris", "It is Lyon. Paris is another city.", False),
        ("au", "The symbol is Au.", True),
        ("au", "Australia", False),
        ("8|eight", "A spider has eight legs.", True),
        ("8|eight", "A spider has 18 legs.", False),
        ("blue whale", "The blue whale is the largest.", True),
        ("paris", "", False),
    ],
)
def test_a_fact_is_right_if_the_first_sentence_names_it(wanted, answer, right):
    assert get_task("facts").judge(wanted.split("|"), answer).correct == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Hello! How can I help you today?", True),
        ("Hello", False),
        ("3", False),
        ("Hello, 3 + 4 = 7", False),
        ("The answer is seven.", False),
        ("hello hello hello hello hello hello hello hello hello hello", False),
        ("Hello, I can help. " + "And so on we go with new words again, " * 20, False),
    ],
)
def test_a_reply_is_sensible_if_it_fits_and_is_no_calculation(answer, right):
    assert get_task("small_talk").judge(["hello", "help"], answer).correct == right


def test_answers_are_read_with_and_without_tags():
    task = get_task("facts")
    (problem, *_) = task.problems("test", None, 0)
    name = problem.answer.partition("|")[0]
    for response in (f"It is {name}.", f"<think>\n\n</think><answer> {name}</answer>"):
        assert task.verify(problem, task.extract(response)).correct
    assert task.extract("<think> paris </think> ") is None
