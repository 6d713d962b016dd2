"""Makes the domains of the tiny world into tasks. `tiny_math?low=8&high=10` sets other levels."""

import functools
import itertools
import operator
import random
from collections.abc import Sequence

from reasoning.mathematics.answers import extract_answer
from reasoning.problem import Problem, Verdict, WorkedSolution
from reasoning.response import after_chain, parse_response
from reasoning.tasks import Task
from reasoning.tasks.math_task import MathTask
from reasoning.tiny_world import chat, countdown, domains, planted_errors, splits
from reasoning.tiny_world.language import LANGUAGES

_VALUES = ({"a": 2, "b": 3, "c": 5}, {"a": 7, "b": 1, "c": -4}, {"a": -3, "b": 8, "c": 6})
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class TinyTask(Task):
    """Draws problems of one domain; subclasses verify them.

    Args:
      name: the spec.
      low, high: the range of levels; by default that of the domain.

    Raises:
      ValueError: the levels are not whole numbers with 1 <= low <= high.
    """

    def __init__(self, name: str, *, low: int | None = None, high: int | None = None):
        super().__init__(name)
        self._domain = name.partition("?")[0]
        default = domains.levels_of(self._domain)
        self._levels = (default[0] if low is None else low, default[1] if high is None else high)
        low, high = self._levels
        if not all(isinstance(level, int) for level in self._levels) or not 1 <= low <= high:
            raise ValueError(
                f"task {name!r} has levels from low={low} to high={high}: give whole numbers with"
                " 1 <= low <= high"
            )

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws problems; see `Task.problems`."""
        if count is None and self._domain in domains.LEVELS:
            raise ValueError(f"task {self.name!r} makes problems without end: give a count")
        drawn = splits.problems(self._domain, split, seed, self._levels)
        taken = list(itertools.islice(drawn, count))
        if count is not None and len(taken) < count:
            raise ValueError(
                f"task {self.name!r} has {len(taken)} {split} problems, but {count} are requested"
            )
        return taken

    @property
    def plants_errors(self) -> bool:
        """Says whether the domain has worked solutions with errors."""
        return self._domain in domains.LEVELS

    def planted_errors(
        self, problems: Sequence[Problem], rng: random.Random
    ) -> list[WorkedSolution]:
        """Returns worked solutions, some with an error; see `Task.planted_errors`."""
        if not self.plants_errors:
            return super().planted_errors(problems, rng)
        return planted_errors.planted_errors(self._domain, problems, rng)

    def extract(self, response: str) -> str | None:
        """Returns the content of the answer block, or else the last line.

        Solutions without tags end with the answer.
        """
        if (answer := parse_response(response).answer) is not None:
            return answer
        lines = [line.strip() for line in after_chain(response).splitlines() if line.strip()]
        if not lines:
            return None
        for language in LANGUAGES.values():
            lines[-1] = lines[-1].removeprefix(language.conclusion.format("")).strip()
        return lines[-1]


class TinyMath(TinyTask, MathTask):
    """Sums; the answer is a number."""

    def extract(self, response: str) -> str | None:
        """Returns the final answer in a response; see `extract_answer`."""
        return extract_answer(response)


class TinyWords(TinyTask):
    """Tasks with answers in words: a name, a place, a reply."""

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Compares answers with the references by their words, in any case."""
        return [self._compare(p.answer, a) for p, a in zip(problems, answers, strict=True)]

    @staticmethod
    def _compare(reference: str, answer: str) -> Verdict:
        if not answer.strip():
            return Verdict(False, "no answer")
        same = reference.rstrip(".!?").casefold() == answer.strip().rstrip(".!?").casefold()
        differs = f"{answer.strip()[:40]!r} is not {reference!r}"
        return Verdict(same, "same words" if same else differs)


class TinyLogic(TinyWords):
    """Who wins or loses a contest."""


class TinyKnowledge(TinyWords):
    """Facts, which are few."""

    figure = "accuracy"
    evaluated_whole = True


class TinyChat(TinyTask):
    """Small talk; a reply is right if it is better than a curt one."""

    figure = "win_rate"
    evaluated_whole = True

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Compares each reply with a curt one."""
        return [
            Verdict(chat.win(p, a) == 1, f"quality {chat.quality(p, a)} of 3")
            for p, a in zip(problems, answers, strict=True)
        ]

    def score(self, problem: Problem, answer: str, verdict: Verdict) -> float:
        """Returns 1 if the reply is better than the curt one, 0.5 for a tie, else 0."""
        return chat.win(problem, answer)


class TinyCountdown(TinyTask):
    """Expressions of given numbers; an answer is right if it uses them all and has the target.

    Raises:
      ValueError: the levels are not possible, or there are too many numbers to solve for.
    """

    def __init__(self, name: str, *, low: int | None = None, high: int | None = None):
        super().__init__(name, low=low, high=high)
        if self._levels[1] > countdown.MOST_NUMBERS:
            raise ValueError(
                f"task {name!r} asks for {self._levels[1]} numbers: give at most"
                f" high={countdown.MOST_NUMBERS}"
            )

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Computes each answer exactly; see `countdown.fault`."""
        verdicts = []
        for problem, answer in zip(problems, answers, strict=True):
            numbers, target = problem.metadata["numbers"], problem.metadata["target"]
            fault = countdown.fault(answer, numbers, target)
            verdicts.append(Verdict(not fault, fault or f"makes {target} from the given numbers"))
        return verdicts


class TinyCode(TinyTask):
    """Expressions; an answer is right if it has the right values when it runs in the sandbox."""

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Runs each answer with several values of its variables."""
        # Samples of a problem are often equal; equal ones run only once.
        asked = [(p.answer, answer) for p, answer in zip(problems, answers, strict=True)]
        jobs = {key: (key[1], _expected(problem)) for key, problem in zip(asked, problems)}
        results = dict(zip(jobs, _runner().run_tests_batch(list(jobs.values()))))
        found = [results[key] for key in asked]
        return [Verdict(result.passed == result.total, result.reason) for result in found]


def _expected(problem: Problem):
    """Returns tests with the values of the expression, computed from the steps that made it."""
    from reasoning.code_runner import ExpressionTest

    tests = []
    for values in _VALUES:
        value = values[problem.metadata["start"]]
        for symbol, operand in problem.metadata["operations"]:
            operand = values[operand] if operand in values else int(operand)
            value = _OPERATORS[symbol](value, operand)
        tests.append(ExpressionTest(values, value))
    return tests


@functools.cache
def _runner():
    # Imported here because starting a sandbox takes time, and only this task runs code.
    from reasoning.code_runner import CodeRunner

    return CodeRunner(num_workers=2)
