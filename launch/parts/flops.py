"""Counts the floating-point operations of the matrix products in training and sampling."""

from collections.abc import Sequence

import numpy as np

from models.config import ModelConfig

# An update costs three forward passes: the backward pass costs two.
UPDATE = 3


def forward(config: ModelConfig, lengths: Sequence[int]) -> float:
    """Returns the FLOPs of one forward pass over sequences of these lengths in tokens.

    The count is the same for whole sequences and for decoding token by token.
    """
    tokens = np.asarray(lengths, np.float64)
    return float(np.sum(tokens * config.flops_per_token(tokens / 2)))


def sampling(config: ModelConfig, prompts: Sequence[int], completions: np.ndarray) -> float:
    """Returns the FLOPs of sampling completions; each group's prompt is prefilled once.

    Args:
      prompts: P lengths in tokens.
      completions: `[P, G]` lengths in tokens.
    """
    before = np.asarray(prompts, np.float64)[:, None]
    drawn = np.asarray(completions, np.float64)
    decode = np.sum(drawn * config.flops_per_token(before + drawn / 2))
    return forward(config, prompts) + float(decode)
