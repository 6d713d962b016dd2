"""Accuracy reward: is the final answer right? (DeepSeek-R1, arXiv:2501.12948, 2.2.2)"""

import dataclasses
import functools
from collections.abc import Sequence

from reasoning.grading import grade_completions
from reasoning.problem import Problem
from reasoning.tasks import get_task
from rl.rewards import RewardResult, Sample

_task = functools.cache(get_task)


@dataclasses.dataclass(frozen=True)
class AccuracyReward:
    """1 if the verifier of the problem's task accepts the answer, else 0.

    Verifiers enforce their own limits of time and memory, in worker processes if they need them.

    Attributes:
      require_format: if set, read the answer only from the answer block of a well-formed response;
        any other response earns 0. Otherwise `Task.extract` searches leniently (last box, last
        number, ...), but never inside the think block.
    """

    require_format: bool = False

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        return self.score_batch([Sample(prompt, completion, problem, num_tokens=0)])[0]

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        grades = grade_completions(
            [sample.problem for sample in samples],
            [sample.prompt for sample in samples],
            [sample.completion for sample in samples],
            lambda problem: _task(problem.task),
            require_format=self.require_format,
        )
        return [RewardResult(float(g.verdict.correct), g.verdict.reason) for g in grades]
