"""Outcome reward model (ORM): gives one score to a whole solution (arXiv:2110.14168)."""

from collections.abc import Sequence

from reasoning.verifiers.scalar import ScalarVerifier


class OutcomeVerifier(ScalarVerifier):
    """Estimates the probability that a solution's answer is right.

    Training uses every token of a response, so the model is a value function and its tracker can
    also score unfinished solutions.
    """

    def read_at(self, token_ids: Sequence[int]) -> list[int]:
        """Returns the index of the last token, whose value is the score."""
        return [len(token_ids) - 1]
