"""Tests the task registry, and the tasks with a fixed set of problems."""

import json
import os
import pathlib
import sys

import pytest

from reasoning.problem import Problem
from reasoning.tasks import TASKS, get_task

DATA = pathlib.Path(
    os.environ.get("ERGO_DATA", pathlib.Path(__file__).parents[3] / ".." / "shared" / "data")
)


def _write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def own_problems(tmp_path):
    records = [{"prompt": f"{i} + 1 = ?", "answer": i + 1, "level": i % 3} for i in range(200)]
    return _write(tmp_path / "own.jsonl", records)


@pytest.mark.parametrize(
    "spec, fault",
    [
        ("gsm9k", "unknown task 'gsm9k'"),
        ("gsm8k?data_dri=x", "data_dri"),
        ("gsm8k?data_dir", "key=value"),
        ("jsonl", "path"),
        ("math500:a:b?path=c", "path"),
        ("rg:no_such_task", "no task 'no_such_task'"),
        ("rg:chain_sum?min_trems=3", "min_terms"),
        ("rg:chain_sum?seed=3", "seed"),
        ("rg:chain_sum?min_terms=9&max_terms=2", "max_terms"),
        ("rg", "no task ''"),
    ],
)
def test_a_bad_spec_is_one_clear_line(spec, fault):
    with pytest.raises(ValueError, match=fault) as error:
        get_task(spec)
    assert "\n" not in str(error.value)


def test_every_registered_task_can_be_imported():
    import importlib

    for target in TASKS.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_jsonl_holds_out_a_tenth(own_problems):
    task = get_task(f"jsonl:{own_problems}")
    train, test = task.problems("train", None, 0), task.problems("test", None, 0)
    assert len(train) + len(test) == 200 and 5 < len(test) < 40
    assert not {p.question for p in train} & {p.question for p in test}
    problem = train[0]
    assert problem.task == task.name
    assert problem.metadata == {"level": (int(problem.answer) - 1) % 3}
    assert get_task(problem.task).verify(problem, f"${problem.answer}$").correct
    assert not task.verify(problem, f"{problem.answer}0").correct


def test_drawing_depends_on_the_seed_alone(own_problems):
    task = get_task(f"jsonl:{own_problems}")
    first = task.problems("train", 20, seed=1)
    assert task.problems("train", 20, seed=1) == first
    assert task.problems("train", 20, seed=2) != first
    assert len({p.question for p in first}) == 20
    with pytest.raises(ValueError, match="but 1000 are requested"):
        task.problems("train", 1000, seed=1)
    with pytest.raises(ValueError, match="'validation'"):
        task.problems("validation", 1, seed=1)


def test_jsonl_takes_a_test_file_and_either_name_of_the_question(tmp_path):
    train = _write(tmp_path / "train.jsonl", [{"prompt": "1 + 1?", "answer": "2"}])
    test = _write(tmp_path / "test.jsonl", [{"question": "Who?", "answer": "Eve", "level": 3}])
    task = get_task(f"jsonl:{train}?test={test}")
    assert [p.question for p in task.problems("train", None, 0)] == ["1 + 1?"]
    (problem,) = task.problems("test", None, 0)
    assert (problem.question, problem.answer, problem.metadata) == ("Who?", "Eve", {"level": 3})


@pytest.mark.parametrize(
    "line, fault",
    [
        ("{", "no JSON"),
        ('{"prompt": "?"}', "no field 'answer'"),
        ('{"answer": "5"}', "no field 'prompt'"),
        ('{"prompt": "?", "answer": []}', "must be text"),
        ('{"prompt": "?", "answer": true}', "must be text"),
        ('{"prompt": " ", "answer": "5"}', "is empty"),
    ],
)
def test_jsonl_errors_name_file_and_line(tmp_path, line, fault):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "1 + 1?", "answer": "2"}\n' + line + "\n")
    with pytest.raises(ValueError, match=fault) as error:
        get_task(f"jsonl:{path}").problems("train", None, 0)
    assert str(error.value).startswith(f"{path}:2: ") and "\n" not in str(error.value)


def test_missing_data_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.delenv("MATH500_PATH", raising=False)
    for spec, split, remedy in [
        (f"gsm8k?data_dir={tmp_path}", "test", "TFDS_DATA_DIR"),
        (f"math500:{tmp_path}/none.json", "test", "MATH-500"),
        ("math500", "test", "MATH500_PATH"),
        (f"jsonl:{tmp_path}/none.jsonl", "train", "no such file"),
    ]:
        with pytest.raises(FileNotFoundError, match=remedy) as error:
            get_task(spec).problems(split, None, 0)
        assert "\n" not in str(error.value)


def test_gsm8k_verifies_without_its_data():
    problem = Problem("gsm8k", "How many?", "9 * 2 = <<9*2=18>>18\n#### 18")
    assert get_task("gsm8k").verify(problem, "18 eggs").correct
    assert not get_task("gsm8k").verify(problem, "9").correct


def test_math500_reads_both_forms_of_its_file(tmp_path):
    records = [{"problem": "x?", "answer": r"\frac{1}{2}", "level": 2, "subject": "Algebra"}]
    array = tmp_path / "math500.json"
    array.write_text(json.dumps(records, indent=2))
    lines = _write(tmp_path / "math500.jsonl", records)
    for path in (array, lines):
        task = get_task(f"math500:{path}")
        (problem,) = task.problems("test", None, 0)
        assert problem.metadata == {"level": 2, "subject": "Algebra"}
        assert task.verify(problem, "0.5").correct
    with pytest.raises(ValueError, match="test only"):
        get_task(f"math500:{array}").problems("train", None, 0)
    array.write_text("[{")
    with pytest.raises(ValueError, match="not valid JSON"):
        get_task(f"math500:{array}").problems("test", None, 0)


def test_gsm8k_through_tfds():
    if not (DATA / "tfds" / "gsm8k").exists():
        pytest.skip(f"no GSM8K for TFDS at {DATA / 'tfds'} (set ERGO_DATA)")
    task = get_task(f"gsm8k?data_dir={DATA / 'tfds'}")
    test = task.problems("test", None, 0)
    assert len(test) == 1319 and len(task.problems("train", None, 0)) == 7473
    assert "tensorflow" not in sys.modules
    # Against the original files, read without TFDS.
    lines = (DATA / "gsm8k" / "test.jsonl").read_text().splitlines()
    expected = {r["question"]: r["answer"] for r in map(json.loads, lines)}
    assert {p.question: p.metadata["solution"] for p in test} == expected
    assert all(p.answer == expected[p.question].split("#### ")[1] for p in test)
    verdicts = task.verify_all(test, [p.answer for p in test])
    assert all(v.correct for v in verdicts)


def test_math500_from_its_file():
    path = DATA / "math500" / "math500_test.json"
    if not path.exists():
        pytest.skip(f"no MATH-500 at {path} (set ERGO_DATA)")
    problems = get_task(f"math500:{path}").problems("test", None, 0)
    assert len(problems) == 500 and {p.metadata["level"] for p in problems} == {1, 2, 3, 4, 5}


def test_a_budget_is_named_in_the_questions_of_any_task():
    plain, task = get_task("tiny_logic?high=4"), get_task("tiny_logic?high=4&budget=24")
    drawn = task.problems("test", 5, 3)
    for given, problem in zip(plain.problems("test", 5, 3), drawn, strict=True):
        assert problem.question == f"{given.question} Answer within 24 tokens."
        assert problem.metadata == {**given.metadata, "budget": 24}
        assert (problem.task, problem.answer) == (given.task, given.answer)
        assert task.verify(problem, given.answer).correct
        assert not task.verify(problem, "nobody").correct
    (silent,) = get_task("tiny_chat?budget=0").problems("train", 1, 0)
    assert silent.question.endswith(" Answer without thinking.")
    assert get_task("tiny_chat?budget=0").figure == "win_rate"
    for bad in ("-1", "1.5", "many", "true"):
        with pytest.raises(ValueError, match="must be a whole number of tokens, at least 0"):
            get_task(f"tiny_math?budget={bad}")
