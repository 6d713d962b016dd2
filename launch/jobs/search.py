"""Compares search methods on a model; measurements are resumable, with a table and a plot."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.console import Console
from rich.table import Table

from launch.parts.report import format_figure
from launch.report import figures, results
from launch.report.figures import Axis, Panel
from models.files import salvage_jsonl, write_jsonl
from models.host.storage import GrowingFile
from reasoning.generation.delimiters import split_steps
from reasoning.problem import Problem
from reasoning.search.adaptive import Adaptive, Arm, Outcome, difficulty, fit_plans
from reasoning.search.best_of_n import scored_samples
from reasoning.search.common.evaluation import (
    Entry,
    Measured,
    cheapest,
    difference,
    measure,
)
from reasoning.search.common.sample_bank import SampleBank, ScoreBank
from reasoning.search.interface import Policy, SearchResult
from reasoning.search.methods import ADAPTIVE_ARMS, EXTENDS_PILOTS, ONE_RESPONSE, ORACLE
from reasoning.verifiers import Verifier
from train.progress import Progress

# Answers of a method that are kept to be read, and those of them that keep all finished paths.
SAMPLES_KEPT, TREES_KEPT = 8, 2


def bank(
    policy: Policy,
    entries: Mapping[str, Entry],
    size: int,
    problems: Sequence[Problem],
    seed: int,
) -> tuple[Policy, dict[str, Entry]]:
    """Returns policy and methods that share samples and scores of whole responses.

    Args:
      policy: the model and how it is sampled.
      entries: the methods by name.
      size: samples of a problem, as many as the largest budget.
      problems: what the methods are going to answer.
      seed: seed of the shared samples.
    """
    generator = SampleBank(
        policy.generator,
        size,
        policy.max_new_tokens,
        policy.sampling,
        shared=[policy.template(problem.question) for problem in problems],
        seed=seed,
    )
    banks: dict[int, ScoreBank] = {}
    shared = {}
    for name, entry in entries.items():
        verifier = entry.verifier
        if verifier is not None:
            # A `ScoreBank` hands on to its verifier whatever it does not define itself.
            verifier = cast(Verifier, banks.setdefault(id(verifier), ScoreBank(verifier)))
        shared[name] = Entry(entry.method, verifier)
    return dataclasses.replace(policy, generator=generator), shared


def compare(
    policy: Policy,
    entries: Mapping[str, Entry],
    problems: Sequence[Problem],
    budgets: Mapping[str, Sequence[int]],
    path: Path,
    *,
    seed: int,
    title: str,
) -> list[Measured]:
    """Measures methods at budgets; measurements that `path` holds are not repeated.

    Args:
      policy: the model and how it is sampled.
      entries: the methods by name.
      problems: the problems to answer.
      budgets: method -> its budgets.
      path: a JSONL file with a line for each measurement, written when it is complete.
      seed: seed of all samples.
      title: the name of the comparison in the progress display.
    """
    done = {}
    if path.exists():
        records, damaged = salvage_jsonl(path)
        for number in damaged:  # A kill may cut the last line short.
            print(f"{path}:{number}: the line is not whole; it is measured again", flush=True)
        for measured in map(Measured.from_record, records):
            done[measured.method, measured.budget] = measured
        write_jsonl(path, [each.record() for each in done.values()])
    wanted = [(name, budget) for name in entries for budget in budgets.get(name, ())]
    progress = Progress(title, len(wanted), sum(each in done for each in wanted))
    most = max(budget for each in budgets.values() for budget in each)
    policy, entries = bank(policy, entries, most, problems, seed)
    with contextlib.closing(GrowingFile(path)) as file:
        for name, budget in wanted:
            if (name, budget) in done:
                continue
            if name in ONE_RESPONSE and (name, 1) in done:
                measured = dataclasses.replace(done[name, 1], budget=budget)
            else:
                measured, results = measure(name, entries[name], policy, problems, budget, seed)
                if budget == max(budgets[name]):
                    _write_samples(
                        path.with_name(f"{path.stem}_samples"), name, results, measured,
                        policy.delimiter,
                    )  # fmt: skip
            file.append(json.dumps(measured.record()))
            done[name, budget] = measured
            shown = {"accuracy": measured.accuracy, "tokens": float(measured.tokens.mean())}
            figures = "  ".join(f"{key} {value:.3g}" for key, value in shown.items())
            progress.say(f"{title}: {name}@{budget}  {figures}")
            progress.update(len(done), shown)
    progress.close()
    return [done[each] for each in wanted]


def _write_samples(
    directory: Path,
    name: str,
    results: Sequence[SearchResult],
    measured: Measured,
    delimiter: str,
) -> None:
    """Writes the first few answers, with their chains in a field of their own.

    The first ones also have `paths`: the finished paths by their steps, from which the report page
    makes the tree of the search.
    """
    records = [
        {
            "question": result.problem.question,
            "reference": result.problem.answer,
            "chain": result.chain,
            "answer": result.answer,
            "correct": bool(correct),
            "candidates": len(result.candidates),
            "spent": dataclasses.asdict(result.spent),
        }
        for result, correct in zip(results[:SAMPLES_KEPT], measured.correct)
    ]
    for record, result in zip(records[:TREES_KEPT], results):
        record["paths"] = [
            {
                "steps": split_steps(each.response, delimiter),
                "answer": each.answer,
                "score": each.score,
                "chosen": each.response == result.response,
            }
            for each in result.candidates
        ]
    write_jsonl(directory / f"{name}.jsonl", records)


def fit_adaptive(
    policy: Policy,
    entries: Mapping[str, Entry],
    calibrated: Sequence[Measured],
    problems: Sequence[Problem],
    budgets: Sequence[int],
    *,
    pilots: int,
    aggregation: str,
    seed: int,
) -> Adaptive:
    """Fits the adaptive strategy that does best on the calibration problems.

    Args:
      policy: the model and how it is sampled.
      entries: the methods by name.
      calibrated: measurements of the arms on `problems`.
      problems: the calibration problems.
      budgets: budgets to plan for, in responses.
      pilots: responses that judge the difficulty of a problem.
      aggregation: how a verifier's step scores are combined.
      seed: seed of the pilots.
    """
    prm = entries["best_of_n_prm"].verifier
    samples, meters = scored_samples(policy, prm, problems, pilots, aggregation, seed)
    outcomes = {
        Arm(each.method, each.budget): Outcome(each.correct, each.tokens)
        for each in calibrated
        if each.method in ADAPTIVE_ARMS
    }
    plans = fit_plans(
        outcomes,
        difficulty(samples),
        np.array([meter.spent.generated_tokens for meter in meters]),
        pilots=pilots,
        extends_pilots=EXTENDS_PILOTS,
        budgets=budgets,
        unit_tokens=float(np.mean([each.tokens.mean() for each in calibrated if each.budget == 1])),
    )
    methods = {}
    for name in ADAPTIVE_ARMS:
        entry = entries[name]
        methods[name] = (entry.method, None if entry.verifier is prm else entry.verifier)
    return Adaptive(methods, plans, aggregation)


def findings(measured: Sequence[Measured]) -> list[str]:
    """Returns lines that say what the comparison shows of the claims for these methods."""
    by = {(each.method, each.budget): each for each in measured}
    curves: dict[str, list[Measured]] = {}
    for point in measured:
        curves.setdefault(point.method, []).append(point)
    lines = []

    def compare_two(better, other):
        if better in by and other in by:
            figure = difference(by[better], by[other])
            lines.append(
                f"{better[0]}@{better[1]} less {other[0]}@{other[1]}:"
                f" {format_figure(figure, True)} points"
            )

    compare_two(("cot", 1), ("direct", 1))
    for budget in sorted({each.budget for each in measured} - {1}):
        compare_two(("majority", budget), ("cot", 1))
        compare_two(("best_of_n_prm", budget), ("majority", budget))
        compare_two(("weighted_majority", budget), ("majority", budget))
    for rival in ("best_of_n_prm", "best_of_n_orm"):
        target = max(curves.get(rival, []), key=lambda each: each.accuracy, default=None)
        for name in ("beam", "dvts", "lookahead", "mcts", "adaptive"):
            if target is None or name not in curves:
                continue
            match = cheapest(curves[name], target.accuracy)
            share = "at no budget"
            if match is not None:
                share = f"with {match.tokens.mean() / target.tokens.mean():.2f} of its tokens"
            lines.append(
                f"{name} reaches the best of {rival} ({target.accuracy:.3f} at {target.budget})"
                f" {share}"
            )
    for point in curves.get("adaptive", []):
        rivals = [
            m for m in measured if m.method not in ("adaptive", ORACLE) and m.budget == point.budget
        ]
        best = max(rivals, key=lambda m: m.accuracy)
        figure = format_figure(difference(point, best), True)
        lines.append(
            f"adaptive@{point.budget} less the best single method, {best.method}: {figure} points"
        )
    return lines


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints accuracy and tokens of every method at every budget."""
    budgets = sorted({record["budget"] for record in records})
    table = Table(
        "method", *(f"{b}" for b in budgets),
        title="accuracy (%) [95 % interval] / generated tokens a problem, by budget in responses",
    )  # fmt: skip
    by: dict[str, dict[int, str]] = {}
    for record in records:
        shown = f"{format_figure(record['accuracy'], True)} / {record['tokens']:.0f}"
        by.setdefault(record["method"], {})[record["budget"]] = shown
    for name, row in by.items():
        table.add_row(name, *(row.get(b, "") for b in budgets))
    Console(width=max(100, 24 + 27 * len(budgets))).print(table)


def plot(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Plots accuracy against generated tokens, a line for each method, with 95 % intervals."""
    numbers = sorted({record["accuracy"]["n"] for record in records})
    panel = Panel(
        Axis("generated text", "tokens a problem", log=True),
        Axis("accuracy", "%", bounds=(0, 100)),
        results.scaling_series(records, "tokens"),
        f"n = {' or '.join(map(str, numbers))} problems; bars: 95 % intervals over problems",
    )
    figures.save(path, [panel])
