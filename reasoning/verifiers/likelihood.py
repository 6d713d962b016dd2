"""Verifiers that need no training: what the policy itself thinks of its responses."""

from collections.abc import Sequence

import numpy as np

from reasoning.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers import Tracker


class MeanLogprob:
    """exp of the mean log-probability of a response's tokens: its inverse perplexity.

    Free: the generator has reported it. It scores whole responses only.
    """

    config = None  # runs no model

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """See `Verifier`.

        Raises:
          ValueError: the generator reports no log-probabilities.
        """
        if any(completion.logprobs is None for group in completions for completion in group):
            raise ValueError(
                "the mean log-probability was asked for, but the generator reports none: use a"
                " generator that does, or another verifier"
            )
        return [
            [np.exp([np.mean(c.logprobs) if len(c.logprobs) else -np.inf]) for c in group]
            for group in completions
        ]

    def start(self, problems: Sequence[Problem], prompts: Sequence[str], **limits: int) -> Tracker:
        """Raises `ValueError`: a search over steps needs a process verifier."""
        raise ValueError(
            "the mean log-probability scores whole responses: search over steps by another verifier"
        )
