"""Measures a user's own rewards on the responses of the evaluation."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.parts.stages import Measure
from launch.schema.rl import Reinforcement
from reasoning.evaluation import Graded
from reasoning.statistics import mean_with_ci
from rl.rewards import Sample
from rl.rewards.combine import RewardSet, score_divided
from rl.rewards.table import user_rewards


def make_measure(config: Reinforcement) -> Measure | None:
    """Returns a function from graded responses to `reward/NAME` of each reward of the user.

    Returns None if the user has no rewards. The project's own rewards are left out: the evaluation
    measures what they reward anyway, and some of them cost a request or a model.
    """
    own = user_rewards(config.rewards)
    if not own:
        return None
    return _Measure(own, config)


@dataclasses.dataclass(frozen=True)
class _Measure:
    rewards: Mapping[str, Any]
    config: Reinforcement

    def __call__(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """Returns means with intervals, with the problem as the unit of chance."""
        samples = [
            Sample(each.prompt, each.completion.text, each.problem, len(each.completion.token_ids))
            for each in graded
        ]
        with RewardSet(
            self.rewards,
            num_workers=self.config.reward_workers,
            timeout_s=self.config.reward_timeout_s,
            memory_mb=self.config.reward_memory_mb,
        ) as reward_set:
            scores = score_divided(reward_set, samples)
        places: dict[tuple[str, str], list[int]] = {}
        for i, sample in enumerate(samples):
            places.setdefault((sample.problem.task, sample.problem.question), []).append(i)
        return {
            f"reward/{name}": mean_with_ci([float(np.mean(x[rows])) for rows in places.values()])
            for name, x in scores.by_reward.items()
        }
