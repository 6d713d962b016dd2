"""Repetition penalty: the share of a completion's n-grams that occurred before in it.

As in "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv:2502.03373, appendix), where a
length reward was hacked by repetition.
"""

import dataclasses

from reasoning.problem import Problem
from reasoning.text_measures.repetition import repeated_share
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class RepetitionReward:
    """Minus the share of n-grams that occur earlier in the completion, in [-1, 0].

    Attributes:
      ngram: number of words in an n-gram; a shorter text cannot repeat one.
    """

    ngram: int = 4

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise ValueError(f"repetition: ngram={self.ngram} must be at least 1")

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        share = repeated_share(completion, self.ngram)
        return RewardResult(-share, f"{share:.0%} of its {self.ngram}-grams are repeated")
