"""What an answer cost, in tokens, verifier calls and FLOPs: methods compare at equal compute."""

import dataclasses

from models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Spent:
    """Compute that was used; sums with `+`.

    Attributes:
      generated_tokens: sampled, rollouts and abandoned paths included.
      prefill_tokens: read before the first token is sampled, each prompt once.
      verifier_calls: paths or responses that a verifier scored.
      verifier_tokens: tokens it read for that.
      flops: matrix-product FLOPs of all of these, forward; 0 for models of unknown size.
    """

    generated_tokens: int = 0
    prefill_tokens: int = 0
    verifier_calls: int = 0
    verifier_tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        # `vars`, since `astuple` copies deeply: searches add up hundreds of thousands of these.
        return Spent(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))


class Meter:
    """Adds up what one problem's search spends.

    Args:
      policy, verifier: their models; None where the size is unknown, or there is none.
    """

    def __init__(self, policy: ModelConfig | None = None, verifier: ModelConfig | None = None):
        self._policy, self._verifier = policy, verifier
        self.spent = Spent()

    def prefill(self, tokens: int) -> None:
        """A prompt was read."""
        self.spent += Spent(prefill_tokens=tokens, flops=_flops(self._policy, tokens, 0))

    def generate(self, tokens: int, context: int) -> None:
        """`tokens` were sampled behind `context` tokens."""
        self.spent += Spent(generated_tokens=tokens, flops=_flops(self._policy, tokens, context))

    def verify(self, tokens: int, context: int, calls: int = 1) -> None:
        """A verifier read `tokens` behind `context` tokens that it had read before."""
        self.spent += Spent(
            verifier_calls=calls,
            verifier_tokens=tokens,
            flops=_flops(self._verifier, tokens, context),
        )


def _flops(model: ModelConfig | None, tokens: int, context: int) -> float:
    # Token i of them attends to `context` + i others and itself.
    return tokens * model.flops_per_token(context + (tokens + 1) / 2) if model else 0.0
