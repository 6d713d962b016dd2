"""Measures whether a chain checks itself; give it weight 0, since rewarding it invites chatter."""

import dataclasses

from reasoning.problem import Problem
from reasoning.response import parse_response, whole_response
from reasoning.text_measures.reflection import count_self_checks
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class SelfCheckReward:
    """1 if the chain has a reflective word (`reasoning.text_measures.reflection`), else 0."""

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        response = parse_response(whole_response(prompt, completion))
        count = count_self_checks(response.chain or "")
        return RewardResult(float(count > 0), f"{count} reflective words")
