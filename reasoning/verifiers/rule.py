"""The oracle verifier: it knows the reference answers, which bounds what any verifier can do."""

from collections.abc import Sequence

import numpy as np

from models.config import ModelConfig
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.response import whole_response
from reasoning.tasks import Task
from reasoning.verifiers.rescoring import RescoringTracker, ResponseSoFar

# Score of a path that has not ended: the oracle judges answers, and the path has none yet.
UNDECIDED = 0.5


class RuleVerifier:
    """Scores 1 if the task's verifier accepts the answer, else 0. Use it for upper bounds only.

    It looks at the reference answer, so what it selects says nothing about a method's own
    performance.
    """

    config: ModelConfig | None = None  # It runs no model.

    def __init__(self, task: Task):
        """Makes an oracle for the problems of a task."""
        self._task = task

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Returns 1 or 0 for each response; see `reasoning.verifiers.Verifier`."""
        flat = [
            (problem, whole_response(prompt, completion.text))
            for problem, prompt, group in zip(problems, prompts, completions, strict=True)
            for completion in group
        ]
        verdicts = iter(self._verdicts(flat))
        return [[np.array([next(verdicts)]) for _ in group] for group in completions]

    def start(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        *,
        capacity: int,
        **limits: int,
    ) -> RescoringTracker:
        """Returns a tracker; see `reasoning.verifiers.Verifier`.

        Paths that have not ended score `UNDECIDED`.
        """
        del limits

        def score(paths: Sequence[ResponseSoFar]) -> list[float]:
            ended = [path.ended for path in paths]
            judged = [
                (problems[p.problem], whole_response(prompts[p.problem], p.text))
                for p, end in zip(paths, ended)
                if end
            ]
            verdicts = iter(self._verdicts(judged))
            return [next(verdicts) if end else UNDECIDED for end in ended]

        return RescoringTracker(len(problems), capacity, score)

    def _verdicts(self, responses: Sequence[tuple[Problem, str]]) -> list[float]:
        answers = [self._task.extract(text) or "" for _, text in responses]
        verdicts = self._task.verify_all([problem for problem, _ in responses], answers)
        return [float(verdict.correct) for verdict in verdicts]
