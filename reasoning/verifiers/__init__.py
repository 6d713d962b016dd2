"""Verifiers score solutions from 0 to 1, as a whole or step by step.

One file per kind: `process` (PRM) and `outcome` (ORM) are learned reward models; `likelihood` uses
the policy's own probabilities; `reward` wraps a reward function; `rule` knows the reference answer,
so it bounds what any verifier can achieve. `process_bench` measures how well a verifier finds wrong
steps. Search methods see only the two interfaces below, `Verifier` and `Tracker`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from models.config import ModelConfig
from reasoning.generation.generator import Completion
from reasoning.generation.steps import Places, Step
from reasoning.problem import Problem


class Tracker(Protocol):
    """Scores the steps of one search and keeps the paths that the search extends and forks.

    Each problem has `capacity` places. A place holds one path: the steps after the problem's
    prompt. Place -1 is the bare prompt.
    """

    def extend(
        self, parents: Places, into: Places, steps: Sequence[Sequence[Step]]
    ) -> list[list[float]]:
        """Extends paths by one step each and scores the steps.

        All parents are read before any place is written.

        Args:
          parents: for each problem, the places of the paths to extend. A place that occurs several
            times is forked.
          into: for each problem, the distinct places that receive the longer paths.
          steps: for each problem, the steps to add.

        Returns:
          For each problem the score of each step, in [0, 1].
        """
        ...

    def copy(self) -> "Tracker":
        """Returns an independent tracker with the same paths, for lookahead."""
        ...


class Verifier(Protocol):
    """Scores whole responses, or the steps of a search through a `Tracker`.

    Attributes:
      config: config of its model, to count FLOPs; None if it runs no model.
    """

    @property
    def config(self) -> ModelConfig | None:
        """Returns the config of the verifier's model, or None if it runs no model."""
        ...

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Returns the step scores of G completions for each of P problems.

        Args:
          problems: P problems.
          prompts: the prompt of each problem, which its completions continue.
          completions: `[P][G]` completions.

        Returns:
          `[P][G]` arrays with one score in [0, 1] for each step. An outcome verifier gives a single
          score. `aggregate` combines them.
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
        """Returns a tracker for a search on some problems; it holds no paths yet.

        Args:
          problems: the problems.
          prompts: the prompt of each problem.
          capacity: places of each problem.
          width: most steps of one problem in one call of `extend`.
          max_new_tokens: most tokens of a path.
          step_tokens: most tokens of a step.
        """
        ...


# Ways to combine the step scores of a solution: the last score, which alone has seen the whole
# solution; the lowest (arXiv:2312.08935); the product, the probability that all steps are right
# (arXiv:2305.20050); the mean.
AGGREGATIONS: Mapping[str, Callable[[np.ndarray], float]] = {
    "last": lambda scores: scores[-1],
    "min": np.min,
    "product": np.prod,
    "mean": np.mean,
}


def aggregate(scores: Sequence[float] | np.ndarray, aggregation: str) -> float:
    """Combines the scores of a solution's steps into one score.

    Args:
      scores: one score for each step.
      aggregation: "last", "min", "product" or "mean".

    Raises:
      ValueError: `aggregation` is unknown, or there are no scores.
    """
    if aggregation not in AGGREGATIONS:
        known = ", ".join(AGGREGATIONS)
        raise ValueError(f"aggregation {aggregation!r} is unknown; choose {known}")
    if not len(scores):
        raise ValueError("there are no step scores to aggregate: the solution has no steps")
    return float(AGGREGATIONS[aggregation](np.asarray(scores, np.float64)))
