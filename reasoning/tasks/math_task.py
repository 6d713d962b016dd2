"""A task whose answers are mathematics."""

import itertools
from collections.abc import Sequence

from reasoning.mathematics.answers import extract_answer
from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.mathematics.verifier import verify_math_all
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task


class MathTask(Task):
    """Verifies by `reasoning.mathematics.verifier`.

    Args:
        name: The spec.
        grading: The conventions to grade by; a spec sets them one by one.
    """

    def __init__(self, name: str, grading: GradingOptions = DEFAULT):
        super().__init__(name)
        self.grading = grading

    def extract(self, response: str) -> str | None:
        return extract_answer(response, self.grading)

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        pairs = zip(problems, answers, strict=True)
        texts = [(self.reference(problem), answer) for problem, answer in pairs]
        return verify_math_all(texts, self.grading)

    def group_answers(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """Answers mean the same if they are mathematically equal: "1/2" and "0.5" are one."""
        by_words = super().group_answers(problems, answers)
        # Only what differs in its words is compared, each with the first of every group so far.
        groups = [list(each) for each in by_words]
        pairs = [
            (p, earlier, later)
            for p, each in enumerate(by_words)
            for earlier, later in itertools.combinations(sorted(set(each)), 2)
        ]
        equal = verify_math_all([(answers[p][a], answers[p][b]) for p, a, b in pairs], self.grading)
        for (p, earlier, later), verdict in zip(pairs, equal, strict=True):
            if verdict.correct:
                first = groups[p][earlier]
                groups[p] = [first if each == groups[p][later] else each for each in groups[p]]
        return groups

    def reference(self, problem: Problem) -> str:
        """The reference to compare with."""
        return problem.answer
