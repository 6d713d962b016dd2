"""Format reward: one think block, then one answer (DeepSeek-R1, arXiv:2501.12948, 2.2.2)."""

import dataclasses

from reasoning.problem import Problem
from reasoning.response import parse_response, whole_response
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class FormatReward:
    """1 for a well-formed response, else 0; `reasoning.response.parse_response` has the rule."""

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        response = parse_response(whole_response(prompt, completion))
        return RewardResult(float(response.well_formed), response.reason)
