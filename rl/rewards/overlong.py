"""Rewards of length in tokens: soft overlong punishment, and budgets that a question names."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from reasoning.response import parse_response, whole_response
from reasoning.tasks.budgets import BUDGET
from rl.rewards import RewardResult, Sample
from rl.rewards.accuracy import AccuracyReward


@dataclasses.dataclass(frozen=True)
class OverlongReward:
    """Soft overlong punishment (DAPO, arXiv:2503.14476, eq. 13).

    It is 0 up to `max_tokens - buffer_tokens`, then falling linearly to -1 at `max_tokens` and
    beyond. A completion that was cut off at the budget has `max_tokens` tokens and so earns -1.

    Attributes:
      max_tokens: the generation budget, L_max in the paper (there 20,480).
      buffer_tokens: length of the slope, L_cache in the paper (there 4,096).
    """

    max_tokens: int
    buffer_tokens: int

    def __post_init__(self) -> None:
        if not 0 < self.buffer_tokens <= self.max_tokens:
            raise ValueError(
                f"overlong: buffer_tokens={self.buffer_tokens} must lie between 1 and"
                f" max_tokens={self.max_tokens}"
            )

    def penalties(self, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """Maps completion lengths in tokens to float64 penalties in [-1, 0] of the same shape."""
        free = self.max_tokens - self.buffer_tokens
        return np.clip((free - np.asarray(lengths, np.float64)) / self.buffer_tokens, -1.0, 0.0)

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        lengths = [sample.num_tokens for sample in samples]
        free = self.max_tokens - self.buffer_tokens
        return [
            RewardResult(float(penalty), f"{length} tokens, and {free} of them are free of penalty")
            for length, penalty in zip(lengths, self.penalties(lengths), strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class BudgetReward:
    """Accuracy within the budget that a question names (L1-Max, arXiv:2503.04697, eq. 2).

    A right answer earns 1 within the budget, then linearly less, and 0 from `slope` tokens beyond
    it. (The paper's reward falls from half a point at the budget, and also rewards answers below
    it.) A budget of 0 asks for an empty chain in a well-formed response, so that nothing is thought
    outside the tags. A question that names no budget is rewarded for accuracy alone. See
    `reasoning.tasks.budgets`.

    Attributes:
      slope: tokens beyond the budget from which a right answer earns nothing.
      require_format: as of `AccuracyReward`.
    """

    slope: int = 16
    require_format: bool = False

    def __post_init__(self) -> None:
        if self.slope < 1:
            raise ValueError(f"budget: slope={self.slope} must be at least 1")

    def kept(self, sample: Sample) -> tuple[float, str]:
        """Returns how well a response keeps its budget, from 0 to 1, and why."""
        budget = sample.problem.metadata.get(BUDGET)
        if budget is None:
            return 1.0, "no budget"
        if not budget:
            response = parse_response(whole_response(sample.prompt, sample.completion))
            if not response.well_formed:
                return 0.0, f"not an empty chain and an answer: {response.reason}"
            return (
                (0.0, "a chain, though none is asked for") if response.chain else (1.0, "no chain")
            )
        share = np.clip((budget + self.slope - sample.num_tokens) / self.slope, 0.0, 1.0)
        return float(share), f"{sample.num_tokens} tokens of {budget}"

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        accuracy = AccuracyReward(require_format=self.require_format).score_batch(samples)
        results = []
        for sample, each in zip(samples, accuracy, strict=True):
            kept, why = self.kept(sample)
            results.append(RewardResult(kept * each.score, f"{why}; {each.reason}"))
        return results
