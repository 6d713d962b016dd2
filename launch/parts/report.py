"""Writes `report.json`, prints the table in the terminal, and plots the stages of a recipe."""

import fnmatch
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.report import figures
from launch.report.sources import read_training
from launch.report.training import rl_panels
from models.files import read_jsonl, write_atomically
from reasoning.statistics import combine_seeds as combine_figures

# The rows of the table, as far as a stage has them; `*` stands for a number of samples.
COLUMNS = (
    "math/pass@1", "math/majority@*", "code/pass@1", "logic/pass@1", "logic/majority@*",
    "knowledge/accuracy", "chat/win_rate", "chat/win_rate_over_rejection_sft", "math/format",
    "format", "language_consistency", "self_checks", "reward/*", "response_tokens",
)  # fmt: skip
# Entries that a stage has only if there was a reason; those of all seeds are kept.
LISTED = ("stopped", "warnings")


def combine_seeds(reports: Sequence[Any]) -> Any:
    """Combines the reports of several seeds, which share one layout, into one.

    Figures (`{"mean", "ci95", "n", "seeds"}`) are combined with the seed as the unit of chance.
    `wall_seconds` are added up. `stopped` and `warnings` list those of all seeds. Other floats
    (tokens, FLOPs) are averaged. Of anything else, such as a budget, the first seed's is kept.
    """
    first = reports[0]
    if isinstance(first, Mapping):
        if "ci95" in first:
            return combine_figures(reports)
        names = [name for name in first if name not in LISTED]
        combined = {name: combine_seeds([each[name] for each in reports]) for name in names}
        for name in LISTED:
            if entries := [entry for each in reports for entry in each.get(name, ())]:
                combined[name] = entries
        if "wall_seconds" in first:
            combined["wall_seconds"] = sum(each["wall_seconds"] for each in reports)
        return combined
    if isinstance(first, list):
        return [combine_seeds(records) for records in zip(*reports, strict=True)]
    return sum(reports) / len(reports) if isinstance(first, float) else first


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Writes `report.json`, NaN and infinity as null; docs/using.md documents its layout."""

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(each) for key, each in value.items()}
        if isinstance(value, list):
            return [finite(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_atomically(path, json.dumps(finite(dict(report)), indent=2, allow_nan=False) + "\n")


def format_figure(figure: Mapping[str, Any] | None, percent: bool) -> str:
    """Formats a figure as `53.1 [49.0, 57.2]`, times 100 if `percent`; "–" for no figure."""
    if figure is None:
        return "–"
    scale = 100 if percent else 1
    low, high = (scale * bound for bound in figure["ci95"])
    return f"{scale * figure['mean']:.1f} [{low:.1f}, {high:.1f}]"


def print_table(stages: Mapping[str, Mapping[str, Any]], seeds: int) -> None:
    """Prints a row for each metric and a column for each stage, figures with 95 % intervals."""
    title = f"mean [95 % interval], {seeds} seed" + ("s" if seeds > 1 else "")
    table = Table("metric", *stages, title=title)
    measured = list(dict.fromkeys(name for stage in stages.values() for name in stage["metrics"]))
    for name in (name for column in COLUMNS for name in fnmatch.filter(measured, column)):
        row = [stage["metrics"].get(name) for stage in stages.values()]
        percent = name != "response_tokens" and not name.startswith("reward/")
        table.add_row(name + (" (%)" if percent else ""), *(format_figure(f, percent) for f in row))
    table.add_row("seconds", *(f"{stage['wall_seconds']:.0f}" for stage in stages.values()))
    Console(width=max(100, 30 + 26 * len(stages))).print(table)


def plot_training(path: Path, directories: Mapping[str, Path]) -> bool:
    """Plots reward, accuracy and response length over the steps of RL, a line for each run.

    Args:
      path: the image file; `figures.save` writes the data beside it.
      directories: label -> the folder of an RL run.

    Returns:
      Whether there was anything to plot: metrics with a reward.
    """
    found = [(label, read_training(each)) for label, each in directories.items()]
    trainings = [
        (label, training, i)
        for i, (label, training) in enumerate(found)
        if any("reward" in record for record in training.records)
    ]
    if trainings:
        figures.save(path, rl_panels(trainings))
    return bool(trainings)


def print_samples(title: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Prints a few graded responses in full."""
    table = Table("question", "response", "answer", "graded", title=title, show_lines=True)
    for record in records:
        verdict = ("right" if record["correct"] else "wrong") + f": {record['reason']}"
        table.add_row(record["question"], record["response"].strip(), record["answer"], verdict)
    Console(width=120).print(table, markup=False)


def show_samples(path: Path, directories: Mapping[str, Path], count: int = 3) -> None:
    """Prints the first graded responses of each stage, and writes them to a file.

    Args:
      path: the JSON file.
      directories: stage -> its directory.
    """
    samples = {}
    for stage, directory in directories.items():
        graded = directory / "graded.jsonl"
        records = read_jsonl(graded) if graded.exists() else ()
        samples[stage] = [record for _, record in itertools.islice(records, count)]
        if samples[stage]:
            print_samples(f"{stage}: the first {count} test problems", samples[stage])
    write_atomically(path, json.dumps(samples, indent=2, ensure_ascii=False))
