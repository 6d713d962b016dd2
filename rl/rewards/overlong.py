"""Soft overlong punishment (DAPO, arXiv:2503.14476, eq. 13), in tokens."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rl.rewards import RewardResult, Sample


@dataclasses.dataclass(frozen=True)
class OverlongReward:
    """0 up to `max_tokens - buffer_tokens`, then falling linearly to -1 at `max_tokens` and beyond.

    A completion that was cut off at the budget has `max_tokens` tokens and so earns -1.

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
