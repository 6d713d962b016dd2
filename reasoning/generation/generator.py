"""The `Generator` interface, which turns prompts into completions.

Search, evaluation and RL see only this interface, so they work with the model in this process
(`jax_generator`) and with any server (`reasoning.server_client`).
"""

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
      text: decoded text, without the end-of-sequence token.
      token_ids: all generated tokens, with the end-of-sequence token; they count as spent.
      logprobs: float32 `[len(token_ids)]`, under softmax(logits / temperature); None if the
        generator does not report them.
      finish: why it ended: "stop" (end-of-sequence token), "stop_string" or "length" (the limit).
    """

    text: str
    token_ids: list[int]
    logprobs: np.ndarray | None
    finish: str


class Generator(Protocol):
    """Anything that samples completions: the compiled sampler, or a server."""

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
        """Samples `num_samples` completions of every prompt.

        Args:
          prompts: the prompts' texts.
          num_samples: completions of each prompt.
          max_new_tokens: most tokens of a completion.
          sampling: temperature and the other sampling settings.
          stop: strings that end a completion.
          seed: seed of the draws.

        Returns:
          The completions of each prompt.
        """
        ...


def fold_seed(seed: int, *purpose: int | str) -> int:
    """Derives a 31-bit seed from a seed and the purpose that it serves.

    Different purposes give independent seeds; equal arguments give the same seed in every process.
    """
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
