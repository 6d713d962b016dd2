"""Names a budget in the questions of any task: `TASK?budget=24`, and `TASK?budget=0` for no chain.

Such problems train a model to keep a budget, with the reward `budget`, and show whether it does.
"""

import dataclasses
import random
from collections.abc import Sequence

from reasoning.problem import Problem, Verdict, WorkedSolution
from reasoning.prompts import naming_budget
from reasoning.tasks import Task

# The key of a problem's metadata.
BUDGET = "budget"


class BudgetTask(Task):
    """The problems of another task, whose questions name the most tokens of a response.

    Raises:
      ValueError: the budget is not a whole number of at least 0.
    """

    def __init__(self, task: Task, budget: int):
        super().__init__(task.name)
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise ValueError(
                f"task {task.name!r}: budget={budget!r} must be a whole number of tokens, at least"
                " 0, which asks for no chain of thought"
            )
        self._task, self._budget = task, budget
        self.figure, self.evaluated_whole = task.figure, task.evaluated_whole
        self.plants_errors = task.plants_errors

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws the task's problems and names the budget; see `Task.problems`."""
        return [
            dataclasses.replace(
                problem,
                question=naming_budget(problem.question, self._budget),
                metadata={**problem.metadata, BUDGET: self._budget},
            )
            for problem in self._task.problems(split, count, seed)
        ]

    def files(self) -> list[str]:
        """See `Task.files`."""
        return self._task.files()

    def extract(self, response: str) -> str | None:
        """See `Task.extract`."""
        return self._task.extract(response)

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """See `Task.verify_all`."""
        return self._task.verify_all(problems, answers)

    def score(self, problem: Problem, answer: str, verdict: Verdict) -> float:
        """See `Task.score`."""
        return self._task.score(problem, answer, verdict)

    def planted_errors(
        self, problems: Sequence[Problem], rng: random.Random
    ) -> list[WorkedSolution]:
        """See `Task.planted_errors`."""
        return self._task.planted_errors(problems, rng)

    def group_answers(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """See `Task.group_answers`."""
        return self._task.group_answers(problems, answers)
