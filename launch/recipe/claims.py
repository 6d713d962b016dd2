"""Judges the claims that this project makes about its methods, from the reports of several seeds.

A claim has parts. A part is one number of each seed's report, and the least value that it must
have. It holds if the whole 95 % interval over seeds lies at or above that value. It fails if the
whole interval lies below, and is open otherwise. A single seed has no interval, so it leaves every
part open. A claim holds if all its parts do, and fails if one does.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reasoning.statistics import mean_with_ci

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"

Report = Mapping[str, Any]  # stage -> the report of this stage, for one seed

REASONING = ("math/pass@1", "code/pass@1", "logic/pass@1")
# Loss of accuracy, in points, that counts as none.
NO_LOSS = -2.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One condition of a claim.

    Attributes:
      name: what is measured; points unless it says otherwise.
      value: computes it from one seed's report. It raises `KeyError` where the report lacks it.
      least: the least value at which the condition is met.
    """

    name: str
    value: Callable[[Report], float]
    least: float


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim about the methods, named like the row of `docs/results.md` that gives its figures."""

    name: str
    text: str
    parts: Sequence[Part]


def judge(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Judges every claim whose stages have run in all seeds.

    Args:
      reports: for each seed, stage -> its report.

    Returns:
      Dicts `{"claim", "text", "verdict", "parts"}`; a part is `{"part", "least", "verdict", "mean",
      "ci95", "n", "seeds"}`.
    """
    judged = []
    for claim in CLAIMS:
        try:
            values = [[part.value(report) for report in reports] for part in claim.parts]
        except KeyError:
            continue
        parts = [_judge(part, each) for part, each in zip(claim.parts, values)]
        verdicts = {part["verdict"] for part in parts}
        verdict = FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS
        judged.append({"claim": claim.name, "text": claim.text, "verdict": verdict, "parts": parts})
    return judged


def lines(judged: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the verdicts in words: a line for each claim, and one for each of its parts."""
    for claim in judged:
        yield f"{claim['claim']} {claim['verdict']}: {claim['text']}"
        for part in claim["parts"]:
            low, high = part["ci95"]
            interval = f"[{low:.1f}, {high:.1f}]" if part["seeds"] > 1 else "(one seed)"
            yield (
                f"    {part['part']}: {part['mean']:.1f} {interval},"
                f" wanted at least {part['least']:g}: {part['verdict']}"
            )


def _judge(part: Part, values: Sequence[float]) -> dict[str, Any]:
    figure = mean_with_ci(values, len(values))
    low, high = figure["ci95"]
    verdict = HOLDS if low >= part.least else FAILS if high < part.least else OPEN
    return {"part": part.name, "least": part.least, "verdict": verdict} | figure


def _metric(stage: Mapping[str, Any], name: str) -> float:
    """Returns the mean of a metric; `*` in its name stands for any number of samples."""
    figures = stage["metrics"]
    return figures[next(iter(fnmatch.filter(figures, name)), name)]["mean"]


def _gain(metric: str, after: str, before: str) -> Callable[[Report], float]:
    """Returns what computes the difference of a share between two stages, in points."""
    return lambda report: 100 * (_metric(report[after], metric) - _metric(report[before], metric))


def _share(metric: str, stage: str) -> Callable[[Report], float]:
    return lambda report: 100 * _metric(report[stage], metric)


def _vote(report: Report) -> float:
    stage = report["r1_zero"]
    gains = [
        _metric(stage, f"{domain}/majority@*") - _metric(stage, f"{domain}/pass@1")
        for domain in ("math", "logic")
    ]
    return 100 * sum(gains) / len(gains)


def _taught(after: str, before: str) -> Callable[[Report], float]:
    """Returns what compares two methods that teach the student: accuracy of all reasoning tasks."""

    def value(report: Report) -> float:
        arms = report["distill"]
        gains = [_metric(arms[after], m) - _metric(arms[before], m) for m in REASONING]
        return 100 * sum(gains) / len(gains)

    return value


def _curve(report: Report, method: str) -> dict[int, tuple[float, float]]:
    """Returns budget -> (accuracy, tokens of a problem) of a search method."""
    records = [each for each in report["search"] if each["method"] == method]
    if not records:
        raise KeyError(method)
    return {each["budget"]: (each["accuracy"]["mean"], each["tokens"]) for each in records}


def _over(better: str, worse: str) -> Callable[[Report], float]:
    """Returns what compares two search methods at the largest budget that both have, in points."""

    def value(report: Report) -> float:
        first, second = _curve(report, better), _curve(report, worse)
        budget = max(set(first) & set(second))
        return 100 * (first[budget][0] - second[budget][0])

    return value


def _fewer_tokens(search: str, baseline: str) -> Callable[[Report], float]:
    """Returns what tells how many times fewer tokens a search needs for a baseline's best accuracy.

    The value is 0 if the search never reaches that accuracy, or the baseline solves nothing.
    """

    def value(report: Report) -> float:
        best = max(_curve(report, baseline).values(), key=lambda point: (point[0], -point[1]))
        enough = [tokens for accuracy, tokens in _curve(report, search).values()
                  if accuracy >= best[0]]  # fmt: skip
        return best[1] / min(enough) if enough and best[0] > 0 else 0.0

    return value


def _on(task: str, value: Callable[[Report], float]) -> Callable[[Report], float]:
    """Returns a value that only a search on problems of a task has, whatever its parameters."""

    def where(report: Report) -> float:
        searched = {each.get("task", "").partition("?")[0] for each in report["search"]}
        if searched != {task}:
            raise KeyError(task)
        return value(report)

    return where


def _cheaper_adaptive(report: Report) -> float:
    """Returns by which factor the adaptive strategy is cheaper than single methods, at its best."""
    single = [
        (each["accuracy"]["mean"], each["tokens"])
        for each in report["search"]
        if each["method"] not in ("adaptive", "oracle")
    ]
    ratios = []
    for accuracy, tokens in _curve(report, "adaptive").values():
        if enough := [cost for reached, cost in single if reached >= accuracy]:
            ratios.append(min(enough) / tokens)
    return max(ratios, default=0.0)


CLAIMS = (
    Claim("F1", "pure RL teaches a base model to reason, and its chains grow", (
        Part("sums, R1-Zero less base", _gain("math/pass@1", "r1_zero", "base"), 40),
        Part("code, R1-Zero less base", _gain("code/pass@1", "r1_zero", "base"), 25),
        Part("logic, R1-Zero less base", _gain("logic/pass@1", "r1_zero", "base"), 25),
        Part("tokens of a response, R1-Zero less base",
             lambda r: _gain("response_tokens", "r1_zero", "base")(r) / 100, 0),
    )),
    Claim("F2", "R1 is more readable and knows more than R1-Zero, at no loss of accuracy", (
        Part("format, R1 less R1-Zero", _gain("format", "r1", "r1_zero"), 0),
        Part("format of R1", _share("format", "r1"), 98),
        Part("language consistency, R1 less R1-Zero",
             _gain("language_consistency", "r1", "r1_zero"), 0),
        Part("knowledge, R1 less R1-Zero", _gain("knowledge/accuracy", "r1", "r1_zero"), 0),
        Part("small talk, R1 less R1-Zero", _gain("chat/win_rate", "r1", "r1_zero"), 0),
        Part("sums, R1 less R1-Zero", _gain("math/pass@1", "r1", "r1_zero"), NO_LOSS),
        Part("code, R1 less R1-Zero", _gain("code/pass@1", "r1", "r1_zero"), NO_LOSS),
        Part("logic, R1 less R1-Zero", _gain("logic/pass@1", "r1", "r1_zero"), NO_LOSS),
    )),
    Claim("F3", "distillation beats RL on the same small student", (
        Part("reasoning, sequence less rl_only", _taught("sequence", "rl_only"), 0),
    )),
    Claim("F4", "distillation with RL on top beats both", (
        Part("reasoning, distill_then_rl less sequence", _taught("distill_then_rl", "sequence"), 0),
        Part("reasoning, distill_then_rl less rl_only", _taught("distill_then_rl", "rl_only"), 0),
    )),
    Claim("F5", "more compute at inference time helps, and a verifier makes it help more", (
        Part("cot less direct", _over("cot", "direct"), 0),
        Part("majority less cot", _over("majority", "cot"), 0),
        Part("weighted_majority less majority", _over("weighted_majority", "majority"), 0),
        Part("times fewer tokens of beam search for the best accuracy of best-of-N",
             _fewer_tokens("beam", "best_of_n_prm"), 2),
    )),
    Claim("F7", "a majority vote lifts R1-Zero", (
        Part("sums and logic, majority less pass@1", _vote, 0),
    )),
    Claim("F9", "the adaptive strategy is at least twice as cheap as any single method somewhere", (
        Part("times fewer tokens, where that is largest", _cheaper_adaptive, 2),
    )),
    Claim("F10", "where dead ends can be seen, a search over steps needs at most half the tokens", (
        *(Part(f"times fewer tokens of {search} for the best accuracy of {baseline}",
               _on("tiny_countdown", _fewer_tokens(search, baseline)), 2)
          for search in ("beam", "lookahead")
          for baseline in ("best_of_n_prm", "best_of_n_orm")),
    )),
)  # fmt: skip
