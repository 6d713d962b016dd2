"""Compares a run with the published findings on this recipe; the seed is the unit of chance.

The findings on DeepSeek-R1 (arXiv:2501.12948): R1-Zero mixes languages, its chains grow and check
themselves, and a vote lifts its accuracy further (2.2.2, 2.2.4). A cold start makes RL converge
sooner and readably (2.3). The last stages restore skills that RL on reasoning alone does not reward
(2.3.3, 2.3.4).
"""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasoning.statistics import mean_with_ci
from train.metrics import read_metrics

# (finding, (stage, metric), (stage, metric)): the finding is the first metric minus the second, for
# shares in points. `*` stands for a number of samples.
DIFFERENCES = (
    ("language consistency, R1-Zero less base",
     ("r1_zero", "language_consistency"), ("base", "language_consistency")),
    ("language consistency, reasoning RL less R1-Zero",
     ("reasoning_rl", "language_consistency"), ("r1_zero", "language_consistency")),
    ("math, R1-Zero less base", ("r1_zero", "math/pass@1"), ("base", "math/pass@1")),
    ("math, reasoning RL less R1-Zero",
     ("reasoning_rl", "math/pass@1"), ("r1_zero", "math/pass@1")),
    ("math, R1 less base", ("r1", "math/pass@1"), ("base", "math/pass@1")),
    ("knowledge, R1-Zero less base",
     ("r1_zero", "knowledge/accuracy"), ("base", "knowledge/accuracy")),
    ("knowledge, R1 less R1-Zero", ("r1", "knowledge/accuracy"), ("r1_zero", "knowledge/accuracy")),
    ("small talk, R1-Zero less base", ("r1_zero", "chat/win_rate"), ("base", "chat/win_rate")),
    ("small talk, R1 less R1-Zero", ("r1", "chat/win_rate"), ("r1_zero", "chat/win_rate")),
    ("math, majority vote less pass@1 of R1-Zero",
     ("r1_zero", "math/majority@*"), ("r1_zero", "math/pass@1")),
    ("logic, majority vote less pass@1 of R1-Zero",
     ("r1_zero", "logic/majority@*"), ("r1_zero", "logic/pass@1")),
    ("response tokens, R1-Zero less base",
     ("r1_zero", "response_tokens"), ("base", "response_tokens")),
    ("responses with self-checks, R1-Zero less base",
     ("r1_zero", "self_checks"), ("base", "self_checks")),
)  # fmt: skip
# Training accuracy is averaged over WINDOW steps. The target of a run is ENOUGH times the accuracy
# of R1-Zero's last WINDOW steps.
WINDOW, ENOUGH = 10, 0.9


def findings(
    reports: Sequence[Mapping[str, Any]], directories: Sequence[Path]
) -> list[dict[str, Any]]:
    """Returns the findings that the finished stages allow.

    Args:
      reports: for each seed, stage -> its report.
      directories: for each seed, the directory with a folder for each stage.

    Returns:
      Dicts `{"finding", "mean", "ci95", "n", "seeds"}`; a single seed has an unbounded interval.
    """
    found = []
    for name, (stage, metric), (before, earlier) in DIFFERENCES:
        pairs = [(_mean(r, stage, metric), _mean(r, before, earlier)) for r in reports]
        differences = [
            after - first for after, first in pairs if after is not None and first is not None
        ]
        if len(differences) == len(reports):
            if metric != "response_tokens":
                differences = [100 * each for each in differences]
            found.append({"finding": name} | mean_with_ci(differences, len(reports)))
    if all("r1_zero" in r and "reasoning_rl" in r for r in reports):
        stages = {"R1-Zero": "r1_zero", "reasoning RL": "reasoning_rl"}
        steps = {
            name: [n for each in directories if (n := steps_to_reach(each, stage)) is not None]
            for name, stage in stages.items()
        }
        if all(len(each) == len(directories) for each in steps.values()):
            pairs = zip(steps["reasoning RL"], steps["R1-Zero"])
            steps["reasoning RL less R1-Zero"] = [after - first for after, first in pairs]
            title = f"RL steps to {ENOUGH:.0%} of R1-Zero's final training accuracy, "
            found += [
                {"finding": title + name} | mean_with_ci(each, len(reports))
                for name, each in steps.items()
            ]
    return found


def steps_to_reach(directory: Path, stage: str) -> int | None:
    """Returns the first step at which a stage's mean training accuracy is enough; see `ENOUGH`.

    Returns None if it never is, or if a stage has metrics of fewer than `WINDOW` steps.
    """
    wanted, reached = (_accuracies(directory / each) for each in ("r1_zero", stage))
    if min(len(wanted), len(reached)) < WINDOW:
        return None
    means = np.convolve(reached, np.ones(WINDOW) / WINDOW, "valid")
    enough = np.flatnonzero(means >= ENOUGH * np.mean(wanted[-WINDOW:]))
    return int(enough[0]) + WINDOW if enough.size else None


def _accuracies(directory: Path) -> list[float]:
    return [r["accuracy"] for r in read_metrics(directory) if "accuracy" in r]


def _mean(report: Mapping[str, Any], stage: str, metric: str) -> float | None:
    figures = report.get(stage, {}).get("metrics", {})
    return next((figures[name]["mean"] for name in fnmatch.filter(figures, metric)), None)


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the findings in words, one in each line."""
    lines = []
    for comparison in found:
        low, high = comparison["ci95"]
        interval = f" [{low:+.1f}, {high:+.1f}]" if comparison["seeds"] > 1 else " (one seed)"
        lines.append(f"{comparison['finding']}: {comparison['mean']:+.1f}{interval}")
    return lines
