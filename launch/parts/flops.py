"""What training costs, in floating-point operations of its matrix products."""

from collections.abc import Sequence

import numpy as np

from models.config import ModelConfig

# A backward pass costs twice a forward pass.
UPDATE = 3


def forward(config: ModelConfig, lengths: Sequence[int]) -> float:
    """Of one forward pass over sequences of so many tokens, whole or token by token."""
    tokens = np.asarray(lengths, np.float64)
    return float(np.sum(tokens * config.flops_per_token(tokens / 2)))


def sampling(config: ModelConfig, prompts: Sequence[int], completions: np.ndarray) -> float:
    """Of drawing completions, the prompt of each group being prefilled once.

    Args:
      prompts: P lengths in tokens.
      completions: `[P, G]` lengths in tokens.
    """
    before = np.asarray(prompts, np.float64)[:, None]
    drawn = np.asarray(completions, np.float64)
    decode = np.sum(drawn * config.flops_per_token(before + drawn / 2))
    return forward(config, prompts) + float(decode)
