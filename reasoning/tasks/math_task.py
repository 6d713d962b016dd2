"""A task whose answers are mathematics."""

from collections.abc import Sequence

from reasoning.math_verifier import verify_math_all
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task


class MathTask(Task):
    """Verifies by `reasoning.math_verifier`."""

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        pairs = zip(problems, answers, strict=True)
        return verify_math_all([(self.reference(problem), answer) for problem, answer in pairs])

    def reference(self, problem: Problem) -> str:
        """The reference to compare with."""
        return problem.answer
