"""ProcessBench: does a verifier find the first wrong step? (arXiv:2412.06559)

A solution's first step with a score below a threshold is taken for the first wrong one; where there
is none, the solution is taken to be right. Measured are the share of erroneous solutions whose
first wrong step is found exactly, the share of right solutions in which nothing is flagged, and
F1, their harmonic mean. The threshold is chosen on other solutions.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.generation.step_splitter import StepSplitter
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate
from reasoning.response import opened_by, tagged
from reasoning.statistics import share_with_ci
from reasoning.tasks import Task
from reasoning.verifiers import Verifier

BOOTSTRAP_DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A solution with its first wrong step.

    Attributes:
      completion: the solution.
      first_error: index of the first wrong step, from 0; None in a right solution.
      kind: of the error, as the task names it; None in a right solution.
    """

    problem: Problem
    prompt: str
    completion: Completion
    first_error: int | None
    kind: str | None


def planted_errors(
    task: Task,
    problems: Sequence[Problem],
    template: PromptTemplate,
    tokenizer: Tokenizer,
    splitter: StepSplitter,
    seed: int,
) -> list[Annotated]:
    """Worked solutions of a task's problems, some with an error at a known step.

    Raises:
      ValueError: the task has no worked solutions; see `Task.planted_errors`.
    """
    solutions = task.planted_errors(problems, random.Random(f"planted errors {seed}"))
    annotated = []
    for problem, solution in zip(problems, solutions, strict=True):
        prompt = template(problem.question)
        opened = opened_by(prompt)
        steps, wrong = solution.steps, solution.first_error
        text = tagged(steps, solution.answer).removeprefix(opened)
        token_ids = [*tokenizer.encode(text), tokenizer.eos_id]
        first_error = None
        if wrong is not None:
            ends = splitter.ends(token_ids)
            first_error = len(ends) - 1
            if wrong < len(steps):
                # What is written up to the end of the wrong line, in bytes.
                written = tagged(steps[: wrong + 1], "").partition("\n</think>")[0]
                written = len(written.removeprefix(opened).encode())
                lengths = np.cumsum([len(tokenizer.token_bytes(token)) for token in token_ids])
                first_error = int(np.searchsorted(lengths[ends], written))
        completion = Completion(text, token_ids, None, "stop")
        annotated.append(Annotated(problem, prompt, completion, first_error, solution.kind))
    return annotated


def step_scores(verifier: Verifier, annotated: Sequence[Annotated]) -> list[np.ndarray]:
    """The verifier's scores of each solution's steps."""
    scores = verifier.score(
        [each.problem for each in annotated],
        [each.prompt for each in annotated],
        [[each.completion] for each in annotated],
    )
    return [group[0] for group in scores]


def choose_threshold(
    scores: Sequence[np.ndarray], first_errors: Sequence[int | None]
) -> float:
    """The threshold of the best F1; of several the middle one.

    Raises:
      ValueError: solutions of one kind only.
    """
    wrong, right = _ranges(scores, first_errors)
    lows, highs = np.concatenate([wrong, right]).T
    # Verdicts change just above a low and just above a high, and nowhere else.
    candidates = np.unique(np.concatenate([highs, np.nextafter(lows, np.inf)]))
    candidates = candidates[np.isfinite(candidates)][:, None]
    f1 = _f1(_within(wrong, candidates).mean(-1), _within(right, candidates).mean(-1))
    best = np.flatnonzero(f1 == f1.max())
    return float(candidates[best[len(best) // 2], 0])


def measure(
    scores: Sequence[np.ndarray],
    first_errors: Sequence[int | None],
    threshold: float,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """`error_accuracy`, `correct_accuracy` and `f1`, each as `reasoning.statistics` gives figures.

    The interval of F1 is of the percentile bootstrap, over erroneous and right solutions apart,
    since their numbers are the benchmark's choice.

    Raises:
      ValueError: solutions of one kind only.
    """
    wrong, right = (_within(r, threshold) for r in _ranges(scores, first_errors))
    rng = np.random.default_rng([seed, len(wrong), len(right)])
    draws = [rng.choice(hits, (BOOTSTRAP_DRAWS, len(hits))).mean(1) for hits in (wrong, right)]
    low, high = np.quantile(_f1(*draws), [0.025, 0.975])
    return {
        "error_accuracy": share_with_ci(int(wrong.sum()), len(wrong)),
        "correct_accuracy": share_with_ci(int(right.sum()), len(right)),
        "f1": {
            "mean": float(_f1(wrong.mean(), right.mean())),
            "ci95": [float(low), float(high)],
            "n": len(scores),
            "seeds": 1,
        },
    }


def _ranges(scores, first_errors) -> tuple[np.ndarray, np.ndarray]:
    """Of erroneous and of right solutions, `[n, 2]`: the thresholds (low, high] that judge each
    exactly, those above the wrong step's score and not above any before it."""
    ranges: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for each, error in zip(scores, first_errors, strict=True):
        low = -np.inf if error is None else each[error]
        ranges[error is not None].append((low, np.min(each[:error], initial=np.inf)))
    for erroneous, kind in ((True, "right"), (False, "erroneous")):
        if not ranges[erroneous]:
            raise ValueError(
                f"all {len(scores)} solutions are {kind}; ProcessBench needs both kinds"
            )
    return np.array(ranges[True]), np.array(ranges[False])


def _within(ranges, threshold):
    """Which ranges `[n, 2]` hold the threshold, or each of `[T, 1]` thresholds."""
    return (ranges[:, 0] < threshold) & (threshold <= ranges[:, 1])


def _f1(a, b):
    """Harmonic mean, 0 where both are."""
    return 2 * a * b / np.maximum(a + b, 1e-12)
