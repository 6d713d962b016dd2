r"""Grades responses that a model gave elsewhere.

    python -m launch.run_grade --task=gsm8k --responses=responses.jsonl --output=graded.jsonl

Each record of `responses` has `answer` (the reference answer of the task) and `response` (all that
the model wrote). `output` repeats the records and adds `correct` and `reason`. An answer to GSM8K
takes less than a millisecond, one to MATH-500 a few. `docs/grading.md` describes the conventions.

Records of a reasoning-gym task also need `metadata` with the problem's `seed` and `index`, from
which the task makes the problem again. The program runs nothing that a graded file holds.
"""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from launch.parts import runtime

if TYPE_CHECKING:
    from rich.console import Console

    from reasoning.problem import Problem, Verdict
    from reasoning.tasks import Task

# Answers verified at once: many enough to keep the workers busy, few enough to show progress.
_BATCH = 256


def read_responses(path: str, task: str) -> "list[tuple[dict[str, Any], Problem, str]]":
    """Reads (record, problem, response) of every line, and checks all before any is graded.

    The verifier also gets `question` (or `prompt`) and `metadata` of a record that has them.

    Raises:
        FileNotFoundError, ValueError: One line that names the file, the line and the fault.
    """
    from reasoning.jsonl import read_jsonl, text_field
    from reasoning.problem import Problem

    rows = []
    for number, record in read_jsonl(path):
        answer = text_field(record, ("answer",), path, number)
        response = record.get("response")
        if not isinstance(response, str):
            fault = "no field 'response'" if response is None else "field 'response' must be text"
            raise ValueError(f"{path}:{number}: {fault}")
        metadata = record.get("metadata", {})
        if not isinstance(metadata, dict):
            raise ValueError(f"{path}:{number}: field 'metadata' must be an object")
        question = str(record.get("question", record.get("prompt", "")))
        rows.append((record, Problem(task, question, answer, metadata), response))
    if not rows:
        raise ValueError(f"{path}: no records to grade")
    return rows


def grade(task: "Task", rows: "Sequence[tuple[dict[str, Any], Problem, str]]") -> "list[Verdict]":
    """Returns a verdict on each response; a response without an answer is wrong."""
    from reasoning.grading import grade_completions

    prompts = [record.get("prompt") for record, _, _ in rows]
    grades = grade_completions(
        [problem for _, problem, _ in rows],
        [prompt if isinstance(prompt, str) else "" for prompt in prompts],
        [response for _, _, response in rows],
        lambda _: task,
    )
    return [each.verdict for each in grades]


def run(task_name: str, responses: str, output: str, console: "Console") -> dict[str, Any]:
    """Grades a file into another and prints the result.

    Returns:
        `{"count", "correct", "accuracy": {"mean", "ci95", "n", ...}, "answers_per_second"}`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    from rich.table import Table

    from reasoning.jsonl import write_jsonl
    from reasoning.statistics import share_with_ci
    from reasoning.tasks import get_task

    task = get_task(task_name)
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: no such folder; create it, or give another --output")
    if os.path.isdir(output):
        raise IsADirectoryError(f"{output}: is a folder; name a file by --output")
    rows = read_responses(responses, task_name)
    verdicts: list[Verdict] = []
    start = time.perf_counter()
    columns = ("grading", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("grading", total=len(rows))
        for first in range(0, len(rows), _BATCH):
            verdicts += grade(task, rows[first : first + _BATCH])
            progress.update(bar, completed=len(verdicts))
    seconds = time.perf_counter() - start

    graded = (
        record | {"correct": verdict.correct, "reason": verdict.reason}
        for (record, _, _), verdict in zip(rows, verdicts, strict=True)
    )
    write_jsonl(output, graded)

    correct = sum(verdict.correct for verdict in verdicts)
    summary = {
        "count": len(rows),
        "correct": correct,
        "accuracy": share_with_ci(correct, len(rows)),
        "answers_per_second": len(rows) / seconds,
    }
    low, high = summary["accuracy"]["ci95"]
    table = Table("task", "answers", "correct", "accuracy", "95 % CI (Wilson)", "answers/s")
    table.add_row(
        task_name,
        str(len(rows)),
        str(correct),
        f"{correct / len(rows):.2%}",
        f"{low:.2%} – {high:.2%}",
        f"{summary['answers_per_second']:.0f}",
    )
    console.print(table)
    console.print(f"written to {output}")
    return summary


def main(argv: Sequence[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    from rich.console import Console

    run(_TASK.value, _RESPONSES.value, _OUTPUT.value, Console())


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _TASK = flags.DEFINE_string(
        "task", None, "Task whose verifier grades, such as gsm8k or math500.", required=True
    )
    _RESPONSES = flags.DEFINE_string(
        "responses", None, "JSON Lines with `answer` and `response`.", required=True
    )
    _OUTPUT = flags.DEFINE_string("output", None, "File for the graded records.", required=True)
    runtime.run_main(main, uses_jax=False)
