"""Outcome reward model: one score for a whole solution (arXiv:2110.14168)."""

from collections.abc import Sequence

from reasoning.verifiers.scalar import ScalarVerifier


class OutcomeVerifier(ScalarVerifier):
    """The probability that a solution's answer is right.

    Trained at every token of a response it is a value function, so its tracker can score unfinished
    solutions as well.
    """

    def read_at(self, token_ids: Sequence[int]) -> list[int]:
        """The last token."""
        return [len(token_ids) - 1]
