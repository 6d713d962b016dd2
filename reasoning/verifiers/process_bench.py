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
from reasoning.response import opened_by
from reasoning.statistics import share_with_ci
from reasoning.tiny_world import corpus, domains
from reasoning.tiny_world.language import LANGUAGES
from reasoning.verifiers import Verifier

BOOTSTRAP_DRAWS = 2000
SLIP, OMISSION = "slip", "omission"
# What a solution may leave out so that it goes wrong, in the metadata of a domain's problems.
OMITTED = {"tiny_math": "terms", "tiny_code": "operations"}


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A solution with its first wrong step.

    Attributes:
      completion: the solution.
      first_error: index of the first wrong step, from 0; None in a right solution.
      kind: of the error, `SLIP` or `OMISSION`; None in a right solution.
    """

    problem: Problem
    prompt: str
    completion: Completion
    first_error: int | None
    kind: str | None


def planted_errors(
    problems: Sequence[Problem],
    template: PromptTemplate,
    tokenizer: Tokenizer,
    splitter: StepSplitter,
    seed: int,
) -> list[Annotated]:
    """Worked solutions of tiny-world problems, every other one with an error at a known step.

    By turns a step has a slip, and the solution leaves something out, where the domain has what can
    be left out. Either is carried on, as a student's would be: later steps are right given the
    wrong one. Each line is in a language of its own choice.

    Args:
      problems: of the tiny world's reasoning domains.

    Raises:
      ValueError: a problem of a task whose solutions have no steps to slip in.
    """
    rng = random.Random(f"planted errors {seed}")
    annotated = []
    for i, problem in enumerate(problems):
        domain = problem.task.partition("?")[0]
        if domain not in domains.LEVELS:
            raise ValueError(
                f"task {problem.task!r} has no worked solutions to plant errors in; use one of "
                + ", ".join(domains.LEVELS)
            )
        kind = wrong = first_error = None
        if i % 2 == 0:
            lines = _lines(problem, domain, rng)
        elif i % 4 == 1 or domain not in OMITTED:
            kind, wrong = SLIP, rng.randrange(len(_lines(problem, domain, rng)) - 1)
            lines = _lines(problem, domain, rng, slip=wrong)
        else:
            kind = OMISSION
            lines, wrong = _with_omission(problem, domain, rng)
        *steps, answer = lines
        prompt = template(problem.question)
        opened = opened_by(prompt)
        text = corpus.tagged(steps, answer).removeprefix(opened)
        token_ids = [*tokenizer.encode(text), tokenizer.eos_id]
        if wrong is not None:
            ends = splitter.ends(token_ids)
            first_error = len(ends) - 1
            if wrong < len(steps):
                # What is written up to the end of the wrong line, in bytes.
                written = corpus.tagged(steps[: wrong + 1], "").partition("\n</think>")[0]
                written = len(written.removeprefix(opened).encode())
                lengths = np.cumsum([len(tokenizer.token_bytes(token)) for token in token_ids])
                first_error = int(np.searchsorted(lengths[ends], written))
        completion = Completion(text, token_ids, None, "stop")
        annotated.append(Annotated(problem, prompt, completion, first_error, kind))
    return annotated


def _lines(
    problem: Problem, domain: str, rng: random.Random | None, slip: int | None = None
) -> list[str]:
    """A worked solution in languages that `rng` chooses, or all in one; the last line answers."""
    languages = tuple(LANGUAGES.values())

    def speak():
        return rng.choice(languages) if rng else languages[0]

    return domains.WORK[domain](problem, speak, lambda line: line == slip)


def _with_omission(
    problem: Problem, domain: str, rng: random.Random
) -> tuple[list[str], int]:
    """A solution that leaves out one of what is given, and its first wrong line.

    That is the line which takes the next thing instead; and the answer, where the last was omitted.
    """
    given = problem.metadata[OMITTED[domain]]
    out = rng.randrange(len(given))
    shorter = {OMITTED[domain]: given[:out] + given[out + 1 :]}
    reduced = dataclasses.replace(problem, metadata=problem.metadata | shorter)
    pairs = zip(_lines(problem, domain, None), _lines(reduced, domain, None))
    wrong = next(i for i, (right, other) in enumerate(pairs) if right != other)
    return _lines(reduced, domain, rng), wrong


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
