"""Grading a file of responses, from the command line in."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console

from launch import run_grade

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("ERGO_DATA", ROOT / ".." / "shared" / "data"))

RECORDS = [
    {"answer": "18", "response": "<think>9 * 2</think><answer>$18.00</answer>", "id": 7},
    {"answer": "9 * 2 = 18\n#### 18", "response": "So 26.\n#### 26"},
    {"answer": 5, "response": "nothing to say"},
]


def _write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def _run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "launch.run_grade", *flags], cwd=ROOT, capture_output=True, text=True
    )


def test_grades_a_file_from_the_command_line(tmp_path):
    output = tmp_path / "graded.jsonl"
    responses = _write(tmp_path / "responses.jsonl", RECORDS)
    done = _run("--task=gsm8k", f"--responses={responses}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    graded = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record.pop("correct") for record in graded] == [True, False, False]
    reasons = [record.pop("reason") for record in graded]
    assert reasons == ["equal to 18", "not 18", "no answer found in the response"]
    assert graded == RECORDS
    assert "33.33%" in done.stdout and "6.15%" in done.stdout and "79.23%" in done.stdout  # Wilson
    assert os.listdir(tmp_path).count("graded.jsonl.partial") == 0


@pytest.mark.parametrize(
    "line, fault",
    [
        ('{"answer": "18"', "no JSON"),
        ("[18]", "object is needed"),
        ('{"answer": "18"}', "no field 'response'"),
        ('{"response": "18"}', "no field 'answer'"),
        ('{"answer": "", "response": "18"}', "is empty"),
        ('{"answer": null, "response": "18"}', "must be text"),
        ('{"answer": "18", "response": ["18"]}', "must be text"),
        ('{"answer": "18", "response": "18", "metadata": 3}', "must be an object"),
    ],
)
def test_a_malformed_line_stops_before_anything_is_written(tmp_path, line, fault):
    responses, output = tmp_path / "responses.jsonl", tmp_path / "graded.jsonl"
    output.write_text("from an earlier run")
    responses.write_text(json.dumps(RECORDS[0]) + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match=fault) as error:
        run_grade.run("gsm8k", str(responses), str(output), Console(quiet=True))
    assert str(error.value).startswith(f"{responses}:3: ")
    assert "\n" not in str(error.value)
    assert output.read_text() == "from an earlier run"


def test_errors_are_one_line(tmp_path):
    missing = str(tmp_path / "none.jsonl")
    for task, responses, output in [
        ("gsm8k", missing, missing),
        ("gsm9k", _write(tmp_path / "responses.jsonl", RECORDS), missing),
        ("gsm8k", _write(tmp_path / "empty.jsonl", []), missing),
        ("gsm8k", str(tmp_path / "responses.jsonl"), str(tmp_path / "no" / "folder" / "out.jsonl")),
    ]:
        with pytest.raises((ValueError, OSError)) as error:
            run_grade.run(task, responses, output, Console(quiet=True))
        assert "\n" not in str(error.value)
    done = _run("--task=gsm8k", f"--responses={missing}", f"--output={missing}")
    assert done.returncode == 1 and done.stderr.splitlines() == [
        f"error: {missing}: no such file; give the path of a JSON Lines file",
        "(ERGO_TRACEBACK=1 shows where)",
    ]


def test_gsm8k_solutions_of_four_models_agree_with_their_labels(tmp_path):
    path = DATA / "gsm8k" / "example_model_solutions.jsonl"
    if not path.exists():
        pytest.skip(f"no GSM8K model solutions at {path} (set ERGO_DATA)")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    models = [key for key, value in rows[0].items() if isinstance(value, dict)]
    records = [
        {
            "answer": row["ground_truth"].rpartition("A:")[2].strip(),
            "response": row[model]["solution"],
            "model": model,
            "label": row[model]["is_correct"],
        }
        for model in models
        for row in rows
    ]
    output = tmp_path / "graded.jsonl"
    responses = _write(tmp_path / "responses.jsonl", records)
    summary = run_grade.run("gsm8k", responses, str(output), Console(quiet=True))
    graded = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(graded) == 4 * 1319
    assert [g for g in graded if g["correct"] != g["label"]] == []
    assert summary["answers_per_second"] > 500
