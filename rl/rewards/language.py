"""Language consistency reward (DeepSeek-R1, arXiv:2501.12948, 2.3.2)."""

import dataclasses

from reasoning.problem import Problem
from reasoning.response import parse_response, whole_response
from reasoning.text_measures.languages import consistency
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class LanguageReward:
    """The share of the chain's words that are in the language of the question, 0..1.

    Only the chain of a well-formed response counts. A chain whose words show no language earns 0,
    so that an empty chain does not count as consistent.
    """

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        response = parse_response(whole_response(prompt, completion))
        if not response.well_formed:
            return RewardResult(0.0, f"not well formed: {response.reason}")
        share = consistency(response.chain or "", problem)
        if share is None:
            return RewardResult(0.0, "no word of the chain shows its language")
        return RewardResult(share, f"{share:.0%} of the words are in the question's language")
