"""A reward as a verifier: rules of format or length, a judge, or a user's own function."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers.rescoring import RescoringTracker, ResponseSoFar


@dataclasses.dataclass(frozen=True)
class RewardInput:
    """What a batched reward is given: prompt and response as text, and what was asked."""

    prompt: str
    completion: str
    problem: Problem
    num_tokens: int


class RewardVerifier:
    """Scores responses by a reward in [0, 1].

    Args:
      reward: has `score_batch(samples) -> results`, or is called as `(prompt, completion,
        problem) -> result`; a result is a number or has a `score`. The callable's faults are
        the caller's to bound: it runs in this process.
    """

    config = None  # what a reward costs is not counted

    def __init__(self, reward: Any | Callable):
        if not callable(reward) and not hasattr(reward, "score_batch"):
            raise ValueError(
                f"reward {reward!r} can be neither called nor asked for score_batch; pass a "
                "function of (prompt, completion, problem)"
            )
        self._reward = reward

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """See `reasoning.verifiers.Verifier`; raises `ValueError` for a score outside [0, 1]."""
        scores = iter(
            self._scores(
                [
                    RewardInput(prompt, c.text, problem, len(c.token_ids))
                    for problem, prompt, group in zip(problems, prompts, completions, strict=True)
                    for c in group
                ]
            )
        )
        return [[np.array([next(scores)]) for _ in group] for group in completions]

    def start(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        *,
        capacity: int,
        **limits: int,
    ) -> RescoringTracker:
        """See `reasoning.verifiers.Verifier`; a path is rewarded as far as it goes."""
        del limits

        def score(paths: Sequence[ResponseSoFar]) -> list[float]:
            return self._scores(
                [
                    RewardInput(prompts[p.problem], p.text, problems[p.problem], len(p.token_ids))
                    for p in paths
                ]
            )

        return RescoringTracker(len(problems), capacity, score)

    def _scores(self, responses: Sequence[RewardInput]) -> list[float]:
        if hasattr(self._reward, "score_batch"):
            results = self._reward.score_batch(responses)
        else:
            results = [self._reward(r.prompt, r.completion, r.problem) for r in responses]
        scores = [float(getattr(result, "score", result)) for result in results]
        for response, score in zip(responses, scores, strict=True):
            if not 0 <= score <= 1:
                raise ValueError(
                    f"the reward is {score} on completion {response.completion!r:.200}; a verifier"
                    " scores in [0, 1]: scale it"
                )
        return scores
