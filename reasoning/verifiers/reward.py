"""Turns a reward into a verifier: a format or length rule, a judge, or a user's own function."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.config import ModelConfig
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers.rescoring import RescoringTracker, ResponseSoFar


@dataclasses.dataclass(frozen=True)
class RewardInput:
    """The input of a batched reward: one response with its prompt and problem.

    Attributes:
      prompt: the prompt's text.
      completion: the response's text.
      problem: the problem.
      num_tokens: tokens of the response.
    """

    prompt: str
    completion: str
    problem: Problem
    num_tokens: int


class RewardVerifier:
    """Scores responses by a reward in [0, 1].

    The reward runs in this process without a time limit or a sandbox.

    Args:
      reward: an object with `score_batch(samples) -> results`, where samples are `RewardInput`s, or
        a function `(prompt, completion, problem) -> result`. A result is a number or has an
        attribute `score`.
    """

    config: ModelConfig | None = None  # The cost of a reward is not counted.

    def __init__(self, reward: Any | Callable):
        if not callable(reward) and not hasattr(reward, "score_batch"):
            raise ValueError(
                f"reward {reward!r} is not callable and has no score_batch; pass a function of"
                " (prompt, completion, problem)"
            )
        self._reward: Any = reward

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Returns the reward of each response; see `reasoning.verifiers.Verifier`.

        Raises:
          ValueError: a reward is outside [0, 1].
        """
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
        """Returns a tracker that rewards partial responses; see `reasoning.verifiers.Verifier`."""
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
        results: Sequence[Any]
        if hasattr(self._reward, "score_batch"):
            results = self._reward.score_batch(responses)
        else:
            results = [self._reward(r.prompt, r.completion, r.problem) for r in responses]
        scores = [float(getattr(result, "score", result)) for result in results]
        for response, score in zip(responses, scores, strict=True):
            if not 0 <= score <= 1:
                raise ValueError(
                    f"the reward is {score} on completion {response.completion!r:.200}, but a"
                    " verifier's score must be in [0, 1]: scale it"
                )
        return scores
