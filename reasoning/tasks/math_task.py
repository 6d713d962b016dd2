"""The base class of tasks with mathematical answers."""

import itertools
import re
from collections.abc import Sequence

from reasoning.mathematics.answers import extract_answer
from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.mathematics.verifier import verify_math_all
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task


class MathTask(Task):
    """A task that verifies answers with `reasoning.mathematics.verifier`.

    Args:
      name: the spec.
      grading: the conventions of grading; a spec sets them one by one.
    """

    def __init__(self, name: str, grading: GradingOptions = DEFAULT):
        super().__init__(name)
        self.grading = grading

    def extract(self, response: str) -> str | None:
        """Returns the final answer in a response, found by the task's grading conventions."""
        return extract_answer(response, self.grading)

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Compares answers with the references; see `verify_math_all`."""
        pairs = zip(problems, answers, strict=True)
        texts = [(self.reference(problem), answer) for problem, answer in pairs]
        return verify_math_all(texts, self.grading)

    def group_answers(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """Groups answers that are mathematically equal: "1/2" and "0.5" mean the same."""
        by_words = super().group_answers(problems, answers)
        # Answers with the same words are already grouped; only the groups are compared.
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
        """Returns the reference answer to compare with."""
        return problem.answer

    def worked_solution(self, problem: Problem) -> tuple[list[str], str] | None:
        """Returns the lines of `metadata["solution"]`, and the reference.

        As in GSM8K, a last line "#### 18" and the calculator's marks `<<9*2=18>>` are left out.
        """
        solution = problem.metadata.get("solution")
        if not isinstance(solution, str):
            return None
        lines = re.sub(r"<<.*?>>", "", solution).splitlines()
        steps = [line.strip() for line in lines if line.strip()]
        if steps and steps[-1].startswith("####"):
            steps.pop()
        return steps, self.reference(problem)
