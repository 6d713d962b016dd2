"""Cosine length reward ("Demystifying Long Chain-of-Thought Reasoning", arXiv:2502.03373, 4.1)."""

import dataclasses
import math
from collections.abc import Sequence

from rl.rewards import RewardResult, Sample
from rl.rewards.accuracy import AccuracyReward


@dataclasses.dataclass(frozen=True)
class CosineReward:
    """Rewards accuracy by length: short right answers and long wrong answers earn more.

    For a completion of t < T tokens, the reward moves from its value at t = 0 to its value at t = T
    along half a cosine: end + (start - end) (1 + cos(pi t / T)) / 2. A completion that uses the
    whole budget earns `exceeded`. Defaults are the paper's.

    Attributes:
      max_tokens: T, the generation budget.
      right_short, right_long: reward of a right answer at t = 0 and at t = T.
      wrong_short, wrong_long: the same for a wrong answer.
      exceeded: reward of a completion that uses the whole budget.
      require_format: see `AccuracyReward`.
    """

    max_tokens: int
    right_short: float = 2.0
    right_long: float = 1.0
    wrong_short: float = -10.0
    wrong_long: float = 0.0
    exceeded: float = -10.0
    require_format: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"cosine: max_tokens={self.max_tokens} must be at least 1")
        if min(self.right_short, self.right_long) < max(
            self.wrong_short, self.wrong_long, self.exceeded
        ):
            raise ValueError(
                f"cosine: a wrong answer may earn {max(self.wrong_short, self.wrong_long)} or"
                f" {self.exceeded}, a right one only {min(self.right_short, self.right_long)}:"
                " make right answers worth more"
            )

    def value(self, right: bool, tokens: int) -> float:
        """Returns the reward of a right or wrong answer with this many tokens."""
        if tokens >= self.max_tokens:
            return self.exceeded
        ends = (self.right_short, self.right_long), (self.wrong_short, self.wrong_long)
        start, end = ends[0 if right else 1]
        return end + (start - end) * (1 + math.cos(math.pi * tokens / self.max_tokens)) / 2

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        accuracy = AccuracyReward(require_format=self.require_format).score_batch(samples)
        return [
            RewardResult(
                self.value(each.score > 0, sample.num_tokens),
                f"{sample.num_tokens} of {self.max_tokens} tokens; {each.reason}",
            )
            for sample, each in zip(samples, accuracy, strict=True)
        ]
