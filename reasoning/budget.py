"""Counts the compute that a search spends: tokens, verifier calls and FLOPs.

With these counts, `reasoning.search.common.evaluation` compares methods at equal compute.
"""

import dataclasses

from models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Spent:
    """The compute that a search spent; `+` adds two of them.

    Attributes:
      generated_tokens: sampled tokens, with those of rollouts and abandoned paths.
      prefill_tokens: tokens read before the first token is sampled, each prompt once.
      verifier_calls: paths or responses that a verifier scored.
      verifier_tokens: tokens that the verifier read for these calls.
      flops: FLOPs of the matrix products of all these forward passes; models of unknown size add 0.
    """

    generated_tokens: int = 0
    prefill_tokens: int = 0
    verifier_calls: int = 0
    verifier_tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        # `astuple` would copy deeply, and a search adds hundreds of thousands of these.
        return Spent(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))


class Meter:
    """Adds up the compute that the search for one problem spends.

    Args:
      policy: config of the policy's model; None if unknown.
      verifier: config of the verifier's model; None if unknown or if it runs no model.
    """

    def __init__(self, policy: ModelConfig | None = None, verifier: ModelConfig | None = None):
        self._policy, self._verifier = policy, verifier
        self.spent = Spent()

    def prefill(self, tokens: int) -> None:
        """Counts a prompt of `tokens` tokens that the policy has read."""
        self.spent += Spent(prefill_tokens=tokens, flops=_flops(self._policy, tokens, 0))

    def generate(self, tokens: int, context: int) -> None:
        """Counts `tokens` tokens that the policy has sampled after `context` tokens."""
        self.spent += Spent(generated_tokens=tokens, flops=_flops(self._policy, tokens, context))

    def verify(self, tokens: int, context: int, calls: int = 1) -> None:
        """Counts `tokens` tokens that the verifier has read after `context` tokens already read."""
        self.spent += Spent(
            verifier_calls=calls,
            verifier_tokens=tokens,
            flops=_flops(self._verifier, tokens, context),
        )


def _flops(model: ModelConfig | None, tokens: int, context: int) -> float:
    # Token i (from 0) attends to `context` + i + 1 tokens; this is their mean over i.
    return tokens * model.flops_per_token(context + (tokens + 1) / 2) if model else 0.0
