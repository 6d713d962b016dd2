"""Limits rewards to the problems of some tasks, for instance helpfulness to small talk."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from reasoning.problem import Problem
from rl.rewards import RewardResult, Sample


@dataclasses.dataclass(frozen=True)
class OnTasks:
    """Applies a text reward to the problems of some tasks; other problems earn 0.

    Attributes:
      reward: the text reward.
      tasks: names of tasks, without their parameters.
    """

    reward: Any
    tasks: tuple[str, ...]

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        if not _applies(problem, self.tasks):
            return _not_asked(problem)
        return self.reward(prompt, completion, problem)


@dataclasses.dataclass(frozen=True)
class BatchOnTasks:
    """Applies a batch reward to the problems of some tasks; it never sees other samples."""

    reward: Any
    tasks: tuple[str, ...]

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        chosen = [sample for sample in samples if _applies(sample.problem, self.tasks)]
        scored = iter(self.reward.score_batch(chosen) if chosen else ())
        return [
            next(scored) if _applies(sample.problem, self.tasks) else _not_asked(sample.problem)
            for sample in samples
        ]


def _applies(problem: Problem, tasks: tuple[str, ...]) -> bool:
    return problem.task.partition("?")[0].partition(":")[0] in tasks


def _not_asked(problem: Problem) -> RewardResult:
    return RewardResult(0.0, f"not a reward of {problem.task}")
