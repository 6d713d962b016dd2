"""ProcessBench: measures whether a verifier finds the first wrong step (arXiv:2412.06559).

The first step with a score below a threshold counts as the verifier's verdict; if no step is below
it, the verdict is that the solution is right. The benchmark reports the share of erroneous
solutions whose first wrong step is found exactly, the share of right solutions without a flagged
step, and F1, the harmonic mean of the two. The threshold is chosen on a separate set of solutions.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.seeds import derive_seed
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
    """A solution with the index of its first wrong step.

    Attributes:
      problem: the problem that it solves.
      prompt: the prompt that it continues.
      completion: the solution.
      first_error: index of the first wrong step, from 0; None if the solution is right.
      kind: the task's name for the kind of error; None if the solution is right.
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
    """Makes worked solutions of a task's problems, some with an error at a known step.

    Args:
      task: a task with `planted_errors`.
      problems: problems of the task.
      template: turns a question into a prompt.
      tokenizer: the tokenizer of the solutions.
      splitter: finds the steps of a solution, as the verifier does.
      seed: seed of the errors.

    Raises:
      ValueError: the task has no worked solutions; see `Task.planted_errors`.
    """
    solutions = task.planted_errors(problems, random.Random(derive_seed(seed, "planted errors")))
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
                # The text up to the end of the wrong line, then its length in bytes.
                written = tagged(steps[: wrong + 1], "").partition("\n</think>")[0]
                written = len(written.removeprefix(opened).encode())
                lengths = np.cumsum([len(tokenizer.token_bytes(token)) for token in token_ids])
                first_error = int(np.searchsorted(lengths[ends], written))
        completion = Completion(text, token_ids, None, "stop")
        annotated.append(Annotated(problem, prompt, completion, first_error, solution.kind))
    return annotated


def step_scores(verifier: Verifier, annotated: Sequence[Annotated]) -> list[np.ndarray]:
    """Returns the verifier's step scores of each solution, `[steps]`."""
    scores = verifier.score(
        [each.problem for each in annotated],
        [each.prompt for each in annotated],
        [[each.completion] for each in annotated],
    )
    return [group[0] for group in scores]


def choose_threshold(scores: Sequence[np.ndarray], first_errors: Sequence[int | None]) -> float:
    """Returns the threshold with the best F1, the middle one if several are equally good.

    Args:
      scores: the step scores of each solution.
      first_errors: the index of each solution's first wrong step; None for right solutions.

    Raises:
      ValueError: all solutions are right, or all are erroneous.
    """
    wrong, right = _ranges(scores, first_errors)
    lows, highs = np.concatenate([wrong, right]).T
    # Verdicts change only just above the ends of a range, so these candidates cover all cases.
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
    """Returns `error_accuracy`, `correct_accuracy` and `f1`, each with a 95 % interval.

    The figures have the form of `reasoning.statistics`. The interval of F1 is a percentile
    bootstrap that resamples erroneous and right solutions separately, since the benchmark fixes how
    many there are of each.

    Args:
      scores: the step scores of each solution.
      first_errors: the index of each solution's first wrong step; None for right solutions.
      threshold: steps with a score below it are flagged; see `choose_threshold`.
      seed: seed of the bootstrap.

    Raises:
      ValueError: all solutions are right, or all are erroneous.
    """
    wrong, right = (_within(r, threshold) for r in _ranges(scores, first_errors))
    rng = np.random.default_rng(derive_seed(seed, len(wrong), len(right)))
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


def _ranges(
    scores: Sequence[np.ndarray], first_errors: Sequence[int | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the range (low, high] of thresholds that give each solution the right verdict.

    Such a threshold is above the score of the first wrong step and not above any score before it.

    Returns:
      The ranges of erroneous and of right solutions, each `[n, 2]`.
    """
    ranges: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for solution_scores, error in zip(scores, first_errors, strict=True):
        low = -np.inf if error is None else solution_scores[error]
        ranges[error is not None].append((low, np.min(solution_scores[:error], initial=np.inf)))
    for erroneous, kind in ((True, "right"), (False, "erroneous")):
        if not ranges[erroneous]:
            raise ValueError(
                f"all {len(scores)} solutions are {kind}; ProcessBench needs both right and"
                " erroneous ones"
            )
    return np.array(ranges[True]), np.array(ranges[False])


def _within(ranges: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Says which ranges `[n, 2]` contain the threshold: bool `[n]`.

    An array `[m, 1]` of thresholds gives `[m, n]`.
    """
    return (ranges[:, 0] < threshold) & (threshold <= ranges[:, 1])


def _f1(a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    """Returns the harmonic mean; 0 if both are 0."""
    return 2 * a * b / np.maximum(a + b, 1e-12)
