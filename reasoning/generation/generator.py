"""A generator turns prompts into completions; search, evaluation and RL see only this interface."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.decoding.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled continuation of a prompt.

    Attributes:
      text: decoded, the end-of-sequence token left out.
      token_ids: the end-of-sequence token included; what was generated, and is to be paid for.
      logprobs: float32 `[len(token_ids)]`, under softmax(logits / temperature); None where the
        generator does not report them.
      finish: "stop", "stop_string" or "length".
    """

    text: str
    token_ids: list[int]
    logprobs: np.ndarray | None
    finish: str


class Generator(Protocol):
    """Anything that samples: the compiled sampler, or a server."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[list[Completion]]:
        """`num_samples` completions of every prompt."""
        ...


def fold_seed(seed: int, *purpose: int | str) -> int:
    """A seed of 31 bits from a seed and what it is for."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
