"""Defines what every code runner does. A local or remote runner adds how it runs one program."""

import abc
import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any, Self

from reasoning.code_runner import judging
from reasoning.code_runner.results import ExpressionResult, Limits, ProgramResult, TestResult


class ProgramRunner(abc.ABC):
    """Runs programs that a model wrote, several at a time, so that they cannot harm this machine.

    Its methods may be called from any thread. It is a context manager; `close` ends its workers.

    Args:
      num_workers: the number of programs that run at the same time.
      limits: what each program may use.

    Raises:
      ValueError: `num_workers` is below 1.
    """

    def __init__(self, num_workers: int, limits: Limits):
        if num_workers < 1:
            raise ValueError(f"num_workers = {num_workers}: a runner needs at least 1 worker.")
        self.limits = limits
        self._threads = concurrent.futures.ThreadPoolExecutor(
            num_workers, thread_name_prefix="code-runner"
        )

    @abc.abstractmethod
    def run_program(self, source: str, *, stdin: str = "") -> ProgramResult:
        """Runs a program as `python program.py` would, with `stdin` as its standard input."""

    @abc.abstractmethod
    def _ask(
        self, kind: str, source: str, requests: Sequence[Any]
    ) -> tuple[ProgramResult, list[str]]:
        """Runs `harness.serve` on a source and its requests.

        Returns how the run ended, and the lines that it replied: at most one more than there are
        requests.
        """

    def run_tests(self, source: str, tests: Sequence[judging.UnitTest]) -> TestResult:
        """Runs unit tests of one kind (see `judging`) on a program.

        One process answers all calls or expressions one after another, so the limits hold for all
        of them together. Each StdinTest gets a process of its own. Once such a test reaches a
        limit, the remaining tests count as failed and are not run.
        """
        kind = judging.check_unit_tests(tests)
        if kind is judging.StdinTest:
            return self._run_stdin_tests(source, tests)
        if kind is judging.CallTest:
            result, answers = self._ask("calls", source, [test.call for test in tests])
        else:
            result, answers = self._ask(
                "expressions", source, [dict(test.variables) for test in tests]
            )
        return judging.judge_answers(tests, result, answers)

    def _run_stdin_tests(self, source, tests):
        failures = []
        for test in tests:
            result = self.run_program(source, stdin=test.stdin)
            failures.append(judging.judge_output(test, result))
            if result.status not in ("ok", "error"):
                failures += ["the test was not run because an earlier test reached a limit"] * (
                    len(tests) - len(failures)
                )
                break
        return judging.judge_outputs(failures)

    def run_tests_batch(
        self, jobs: Sequence[tuple[str, Sequence[judging.UnitTest]]]
    ) -> list[TestResult]:
        """Runs `run_tests` on each (source, tests), as many at a time as there are workers.

        Returns the results in the order of the jobs.
        """
        return list(self._threads.map(lambda job: self.run_tests(*job), jobs))

    def evaluate_expression(
        self, expression: str, variables: Mapping[str, Any]
    ) -> ExpressionResult:
        """Returns the value of a Python expression, such as "a * b + 3", for these variables."""
        judging.check_unit_tests([judging.ExpressionTest(variables, expected=None)])
        result, answers = self._ask("expressions", expression, [dict(variables)])
        if answers[:1] == [judging.LOADED]:
            answers = answers[1:]
        if not answers:
            return ExpressionResult(
                False, None, f"no value: the program {judging.describe_stop(result)}"
            )
        try:
            return ExpressionResult(True, judging.decode(answers[0]), "evaluated")
        except ValueError as error:
            return ExpressionResult(False, None, str(error))

    def close(self) -> None:
        """Ends the workers. Later runs raise RuntimeError."""
        self._threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
