"""Whether a chain checks itself: to be watched, with weight 0; as a reward it invites chatter."""

import dataclasses

from reasoning.problem import Problem
from reasoning.text_measures.reflection import count_self_checks
from rl.rewards import RewardResult
from rl.rewards.format import parse_completion


@dataclasses.dataclass(frozen=True)
class SelfCheckReward:
    """1 if the chain has a reflective word (`reasoning.text_measures.reflection`), else 0."""

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        count = count_self_checks(parse_completion(prompt, completion).chain or "")
        return RewardResult(float(count > 0), f"{count} reflective words")
