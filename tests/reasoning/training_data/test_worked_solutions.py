"""Records from the worked solutions of a task."""

import json

import pytest

from models.tokens.tokenizer_training import train_bpe
from reasoning.problem import Problem
from reasoning.prompts import CHAT_TEMPLATE
from reasoning.response import parse_response, whole_response
from reasoning.tasks import get_task
from reasoning.training_data.worked_solutions import worked_records

SOLUTION = (
    "Two boxes hold 9 * 2 = <<9*2=18>>18 eggs.\n\nHalf of them are 18 / 2 = <<18/2=9>>9.\n#### 9"
)
STEPS = ["Two boxes hold 9 * 2 = 18 eggs.", "Half of them are 18 / 2 = 9."]


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "problems.jsonl"
    records = [
        {"prompt": f"How many eggs {i}?", "answer": "9", "solution": SOLUTION} for i in range(30)
    ]
    records += [{"prompt": f"Without a solution {i}?", "answer": "1"} for i in range(30)]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return get_task(f"jsonl:{path}")


def test_records_are_the_solutions_of_the_training_problems_alone(task):
    records = worked_records(task, "plain", None)
    held_out = {f"User: {p.question}\nAssistant:" for p in task.problems("test", None, 0)}
    assert 20 <= len(records) < 30 and not held_out & {each["prompt"] for each in records}
    for each in records:
        assert each["prompt"].startswith("User: How many eggs")
        assert each["response"].splitlines() == [*STEPS, "The answer is 9."]


@pytest.mark.parametrize(
    "template", ["plain", "think", "cot", "chat", "r1_zero", "chat_r1", "chat_direct"]
)
def test_responses_are_graded_right(task, template):
    tokenizer = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
    tokenizer.template = CHAT_TEMPLATE
    (record, *_) = worked_records(task, template, tokenizer)
    response = whole_response(record["prompt"], record["response"])
    assert task.extract(response) == "9"
    parsed = parse_response(response)
    assert parsed.well_formed == (template in ("think", "r1_zero", "chat_r1"))
    assert (STEPS[0] in response) == (template != "chat_direct")


def test_headings_within_a_solution_are_part_of_it():
    problem = Problem("jsonl:x", "?", "9", {"solution": "#### Step 1\n1 + 8 = 9\n#### 9"})
    steps, answer = get_task("jsonl:x").worked_solution(problem)
    assert steps == ["#### Step 1", "1 + 8 = 9"] and answer == "9"


def test_a_task_without_solutions_is_refused(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"{i}?", "answer": "1"}) + "\n" for i in range(30))
    )
    with pytest.raises(ValueError, match="has no worked solutions to train on"):
        worked_records(get_task(f"jsonl:{path}"), "plain", None)
