"""Says in three sentences what a run of the recipe did, and which command to try next.

Every sentence is computed from the report. A change counts as clear if the 95 % interval of the
difference leaves out 0. That interval comes from those of the two figures (the method MOVER of Zou
and Donner, Statistics in Medicine 27, 2008). It treats them as independent, although both stages
answer the same problems, so it is rather too wide than too narrow.
"""

import dataclasses
import fnmatch
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.terminal.estimate import duration

# The metric that decides whether training helped: the first of these that both stages have.
MAIN = ("math/pass@1", "*/pass@1", "*/accuracy", "*/win_rate")
# Metrics that may grow or shrink without being better or worse, and sums of others.
NEUTRAL = ("response_tokens", "self_checks", "*/format", "*/majority@*", "*/pass@*[0-9][0-9]*")
# A search method that knows the right answers.
ORACLE = "oracle"

Figure = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Ran:
    """What one command did.

    Attributes:
      trained: stages that ran.
      complete: stages that were taken from disk.
      seconds: how long it took.
      estimated: seconds of the first estimate; None if there was none for some stage.
    """

    trained: Sequence[str]
    complete: Sequence[str]
    seconds: float
    estimated: float | None = None


def sentences(report: Mapping[str, Any], ran: Ran) -> tuple[str, str, str]:
    """Returns three sentences: what ran, what it did to the answers, and what else changed.

    Args:
      report: `report.json` of `launch.run_r1`, before or after it was written.
      ran: what the command did.
    """
    stages = {n: s["metrics"] for n, s in report.get("stages", {}).items() if s.get("metrics")}
    return _what_ran(report, ran), _results(report, stages), _changes(stages)


def difference(after: Figure, before: Figure) -> tuple[float, float, float]:
    """Returns how much one figure exceeds another, with the 95 % interval of the difference.

    The interval is unbounded if one of the figures' is.
    """
    found = after["mean"] - before["mean"]
    (low, high), (other_low, other_high) = _bounds(after), _bounds(before)
    down = math.hypot(after["mean"] - low, other_high - before["mean"])
    up = math.hypot(high - after["mean"], before["mean"] - other_low)
    return found, found - down, found + up


def next_command(
    report: Mapping[str, Any], config: str, workdir: str, python: str = sys.executable
) -> str:
    """Returns a command that is worth a try after this run.

    Args:
      report: as for `sentences`.
      config, workdir: what the flags of this command said.
      python: the interpreter.
    """
    stages = {n: s["metrics"] for n, s in report.get("stages", {}).items() if s.get("metrics")}
    again = ["launch.run_r1", f"--config={config}", f"--workdir={workdir}"]
    last = list(stages)[-1] if stages else ""
    # A world whose reasoner is the base model compares search methods, and has no RL before it.
    untrained = report.get("config", {}).get("reasoner") == "base"
    if untrained and not report.get("search"):
        arguments = [*again, "--stages=base,verifiers,search"]
    elif not stages or last == "base" and not untrained:
        arguments = [*again, "--stages=base,r1_zero"]
    elif last == "r1_zero" and not _helped(stages):
        steps = (report.get("config", {}).get("r1_zero") or {}).get("steps") or 100
        arguments = [*again, "--stages=base,r1_zero", f"--config.r1_zero.steps={2 * steps}"]
    else:
        seed = report.get("config", {}).get("seed", 0)
        model = Path(workdir) / f"seed_{seed}" / last / "hf"
        arguments = ["launch.run_chat", f"--model={model}"]
    return shlex.join([_shown_path(python), "-m", *arguments])


def _what_ran(report: Mapping[str, Any], ran: Ran) -> str:
    about = report.get("machine", {})
    where = f" on {about['processor']} ({about['cores']} cores)" if "processor" in about else ""
    seeds = report.get("seeds", 1)
    times = f" with {seeds} seeds" if seeds > 1 else ""
    if ran.trained:
        stages = "The stages" if len(ran.trained) > 1 else "The stage"
        told = f"{stages} {_listed(ran.trained)} ran in {duration(ran.seconds)}{where}{times}"
        if ran.estimated is not None:
            told += f" (the first estimate was {duration(ran.estimated)})"
        if ran.complete:
            told += f", and {_listed(ran.complete)} had been complete before"
    else:
        told = f"Nothing was trained: {_listed(ran.complete)} had been complete before"
    for name, stage in report.get("stages", {}).items():
        for stop in stage.get("stopped", ()):
            told += (
                f"; {name} had stopped itself at step {stop['step']} ({stop['reason']}), and an"
                " earlier checkpoint is its result"
            )
        if warnings := stage.get("warnings"):
            count = f"{len(warnings)} warnings" if len(warnings) > 1 else "a warning"
            told += f"; {name} gave {count}, which the page shows"
    return told + "."


def _results(report: Mapping[str, Any], stages: Mapping[str, Mapping[str, Figure]]) -> str:
    clauses = []
    if stages:
        clauses.append(_training(stages))
    if search := report.get("search"):
        clauses.append(_search(search))
    arms = {n: a for n, a in (report.get("distill") or {}).items() if isinstance(a, Mapping)}
    if arms := {n: a["metrics"] for n, a in arms.items() if a.get("metrics")}:
        clauses.append(_students(arms))
    if not clauses:
        return "No answers were measured, so nothing can be said about them."
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."


def _training(stages: Mapping[str, Mapping[str, Figure]]) -> str:
    names = list(stages)
    first, last = names[0], names[-1]
    metric = _main_metric(stages[first], stages[last])
    if metric is None:
        return f"{_listed(names)} have no figure of right answers in common"
    what, before, after = _task(metric), stages[first][metric], stages[last][metric]
    if first == last:
        low, high = (_percent(bound) for bound in _bounds(after))
        return (
            f"{last} answers {what} right in {_percent(after['mean'])} % (95 % interval {low} to"
            f" {high}, {_count(after)}), and no other stage is there to compare it with"
        )
    found, low, high = difference(after, before)
    values = (
        f"{_percent(before['mean'])} % after {first}",
        f"{_percent(after['mean'])} % after {last}",
    )
    interval = f"a difference of {_points(found, low, high)}, {_count(after)}"
    if low > 0:
        return (
            f"training helped: right answers to {what} rose from {values[0]} to {values[1]}"
            f" ({interval})"
        )
    if high < 0:
        return (
            f"training did harm: right answers to {what} fell from {values[0]} to {values[1]}"
            f" ({interval})"
        )
    return (
        f"training did not clearly help: right answers to {what} went from {values[0]} to"
        f" {values[1]}, which may be chance ({interval})"
    )


def _search(records: Sequence[Mapping[str, Any]]) -> str:
    """Compares the best search method with one chain of thought."""
    fair = [each for each in records if each["method"] != ORACLE]
    one = next((each for each in fair if each["method"] == "cot"), fair[0])
    best = max(fair, key=lambda each: each["accuracy"]["mean"])
    found, low, high = difference(best["accuracy"], one["accuracy"])
    count = len({each["method"] for each in fair})
    told = (
        f"{best['method']}@{best['budget']} with {_percent(best['accuracy']['mean'])} %, against"
        f" {_percent(one['accuracy']['mean'])} % of {one['method']} (a difference of"
        f" {_points(found, low, high)}, {_count(best['accuracy'])}, for"
        f" {best['tokens'] / max(one['tokens'], 1e-9):.1f} times the tokens)"
    )
    if best is one or low <= 0:
        return (
            f"none of {count} search methods was clearly better than {one['method']}; best: {told}"
        )
    return f"of {count} search methods the best on these problems was {told}"


def _students(arms: Mapping[str, Mapping[str, Figure]]) -> str:
    scores = {}
    for name, metrics in arms.items():
        if (metric := _main_metric(metrics, metrics)) is not None:
            scores[name] = (metric, metrics[metric])
    if not scores:
        return "the distillation has no figure of right answers"
    best = max(scores, key=lambda name: scores[name][1]["mean"])
    metric, figure = scores[best]
    low, high = (_percent(bound) for bound in _bounds(figure))
    return (
        f"in the distillation {best} has most answers to {_task(metric)} right,"
        f" {_percent(figure['mean'])} % (95 % interval {low} to {high}, {_count(figure)})"
    )


def _changes(stages: Mapping[str, Mapping[str, Figure]]) -> str:
    """Says how length and format changed, and what became clearly worse."""
    if not stages:
        return "Nothing else was measured."
    names = list(stages)
    before, after = stages[names[0]], stages[names[-1]]
    if len(names) == 1:
        told = []
        if "response_tokens" in after:
            told.append(f"have {after['response_tokens']['mean']:.1f} tokens on average")
        if "format" in after:
            told.append(f"are in the right format in {_percent(after['format']['mean'])} %")
        return f"Its responses {' and '.join(told)}." if told else "Nothing else was measured."
    told = []
    if "response_tokens" in before and "response_tokens" in after:
        told.append(_moved("response_tokens", before, after, "longer", "shorter", "tokens", 1))
    if "format" in before and "format" in after:
        told.append(_moved("format", before, after, "more often", "less often", "%", 100))
    lost = []
    main = _main_metric(before, after)
    for name in before:
        if name in after and name != main and name != "format" and not _is_neutral(name):
            if difference(after[name], before[name])[2] < 0:
                values = _percent(before[name]["mean"]), _percent(after[name]["mean"])
                lost.append(f"{name} ({values[0]} to {values[1]} %)")
    told.append(
        f"{_listed(lost)} became clearly worse"
        if lost
        else "nothing else that was measured became clearly worse"
    )
    return f"{'; '.join(told)}."[0].upper() + f"{'; '.join(told)}."[1:]


def _moved(
    name: str,
    before: Mapping[str, Figure],
    after: Mapping[str, Figure],
    more: str,
    less: str,
    unit: str,
    scale: float,
) -> str:
    found, low, high = difference(after[name], before[name])
    del found
    values = f"{scale * before[name]['mean']:.1f} to {scale * after[name]['mean']:.1f} {unit}"
    if name == "format":
        if low > 0 or high < 0:
            return f"they are {more if low > 0 else less} in the right format ({values})"
        return f"how often they are in the right format did not clearly change ({values})"
    if low > 0 or high < 0:
        return f"responses became {more if low > 0 else less} ({values})"
    return f"the length of responses did not clearly change ({values})"


def _helped(stages: Mapping[str, Mapping[str, Figure]]) -> bool:
    names = list(stages)
    metric = _main_metric(stages[names[0]], stages[names[-1]])
    if metric is None or len(names) < 2:
        return False
    return difference(stages[names[-1]][metric], stages[names[0]][metric])[1] > 0


def _main_metric(before: Mapping[str, Figure], after: Mapping[str, Figure]) -> str | None:
    common = [name for name in before if name in after]
    return next((name for each in MAIN for name in fnmatch.filter(common, each)), None)


def _is_neutral(name: str) -> bool:
    return name.startswith("reward/") or any(fnmatch.fnmatch(name, each) for each in NEUTRAL)


def _bounds(figure: Figure) -> tuple[float, float]:
    """Returns the interval of a figure; reports have null for an infinite bound."""
    low, high = figure["ci95"]
    return -math.inf if low is None else low, math.inf if high is None else high


def _task(metric: str) -> str:
    return metric.partition("/")[0]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(found: float, low: float, high: float) -> str:
    interval = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    return f"{100 * found:+.1f} points, {interval}"


def _count(figure: Figure) -> str:
    seeds = figure.get("seeds", 1)
    return f"n = {seeds} training runs" if seeds > 1 else f"n = {figure['n']} problems"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shown_path(python: str) -> str:
    """Returns an interpreter's path, from the current folder if it is inside."""
    try:
        return str(Path(python).relative_to(Path.cwd()))
    except ValueError:
        return python
