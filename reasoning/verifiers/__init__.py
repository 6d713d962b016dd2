"""Verifiers: how good a solution is, whole or step by step, in numbers from 0 to 1.

One file each: `process` (PRM) and `outcome` (ORM) are learned; `rule` knows the reference answer
and bounds what a verifier can do; `reward` makes one of a reward. Search sees only the two
interfaces below.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from models.config import ModelConfig
from reasoning.generation.generator import Completion
from reasoning.problem import Problem

Places = Sequence[Sequence[int]]


class Tracker(Protocol):
    """Scores the steps of a search, following the paths that it forks and prunes.

    Each of P problems has `capacity` places, and a place holds one path: the steps after the
    problem's prompt. Place -1 is the bare prompt.
    """

    def extend(self, parents: Places, into: Places, steps: Sequence[Sequence]) -> list[list[float]]:
        """Adds a step to paths, and scores it.

        Args:
          parents: for each problem, the places of the paths that are extended; one may be extended
            several times.
          into: alike, the distinct places of the results. All parents are read before any place
            is written.
          steps: alike, the steps (`token_ids`, `text`, `finish`).

        Returns:
          For each problem the score of each step in [0, 1].
        """
        ...

    def copy(self) -> "Tracker":
        """One with the same paths, which goes its own way; to look ahead with."""
        ...


class Verifier(Protocol):
    """Scores responses, or the steps of a search.

    Attributes:
      config: sizes of its model, to count FLOPs by; None where it has none.
    """

    config: ModelConfig | None

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Step scores of G completions of each of P problems.

        Args:
          prompts: what the completions continue, of each problem.

        Returns:
          `[P][G]` arrays in [0, 1], one number for each step; an outcome verifier gives one in all.
          See `aggregate`.
        """
        ...

    def start(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        *,
        capacity: int,
        width: int,
        max_new_tokens: int,
        step_tokens: int,
    ) -> Tracker:
        """A tracker of a search on these problems, with no paths yet.

        Args:
          capacity: places of a problem.
          width: most steps of a problem in one `extend`.
          max_new_tokens: longest path.
          step_tokens: longest step.
        """
        ...


# How the scores of a solution's steps become one: the last, which alone has seen all of it; the
# weakest (arXiv:2312.08935); the probability that all steps are right (arXiv:2305.20050); the mean.
AGGREGATIONS: Mapping[str, Callable[[np.ndarray], float]] = {
    "last": lambda scores: scores[-1],
    "min": np.min,
    "product": np.prod,
    "mean": np.mean,
}


def aggregate(scores: Sequence[float], aggregation: str) -> float:
    """One score of a solution from those of its steps.

    Raises:
      ValueError: an unknown way, or no steps.
    """
    if aggregation not in AGGREGATIONS:
        known = ", ".join(AGGREGATIONS)
        raise ValueError(f"aggregation {aggregation!r} is unknown; choose {known}")
    if not len(scores):
        raise ValueError("there are no step scores to aggregate: the solution has no steps")
    return float(AGGREGATIONS[aggregation](np.asarray(scores, np.float64)))
