"""Format reward: one think block, then one answer (DeepSeek-R1, arXiv:2501.12948, 2.2.2)."""

import dataclasses

from reasoning.problem import Problem
from reasoning.response import THINK_OPEN, Response, parse_response
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class FormatReward:
    """1 for a well-formed response, else 0; by rule, see `reasoning.response.parse_response`."""

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        response = parse_completion(prompt, completion)
        return RewardResult(float(response.well_formed), response.reason)


def opens_chain(prompt: str) -> bool:
    """Whether the prompt ends in `<think>`, so that the completion starts inside the chain."""
    return prompt.rstrip().endswith(THINK_OPEN)


def whole_response(prompt: str, completion: str) -> str:
    """The completion, with the `<think>` that its prompt may have opened."""
    return THINK_OPEN + completion if opens_chain(prompt) else completion


def parse_completion(prompt: str, completion: str) -> Response:
    """Takes the completion of a prompt apart."""
    return parse_response(completion, prefilled_think=opens_chain(prompt))
