"""Whether a chain checks itself: to be watched, with weight 0; as a reward it invites chatter."""

import dataclasses

from reasoning.problem import Problem
from reasoning.response import parse_response, whole_response
from reasoning.text_measures.reflection import count_self_checks
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class SelfCheckReward:
    """1 if the chain has a reflective word (`reasoning.text_measures.reflection`), else 0."""

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        response = parse_response(whole_response(prompt, completion))
        count = count_self_checks(response.chain or "")
        return RewardResult(float(count > 0), f"{count} reflective words")
