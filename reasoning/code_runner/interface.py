"""What every code runner does, local or remote; a runner supplies how a program is run."""

import abc
import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning.code_runner import judging
from reasoning.code_runner.results import ExpressionResult, Limits, ProgramResult, TestResult


class ProgramRunner(abc.ABC):
    """Runs model-written Python out of reach of this machine, several programs at a time.

    Methods may be called from any thread. A context manager; `close` ends its workers.
    """

    def __init__(self, num_workers: int, limits: Limits):
        if num_workers < 1:
            raise ValueError(f"num_workers = {num_workers}: give at least 1.")
        self.limits = limits
        self._threads = concurrent.futures.ThreadPoolExecutor(
            num_workers, thread_name_prefix="code-runner"
        )

    @abc.abstractmethod
    def run_program(self, source: str, *, stdin: str = "") -> ProgramResult:
        """Runs a program, as `python program.py` would with `stdin` for input."""

    @abc.abstractmethod
    def _ask(
        self, kind: str, source: str, requests: Sequence[Any]
    ) -> tuple[ProgramResult, list[str]]:
        """Runs `harness.serve`.

        Returns how the run ended and the lines it replied, at most one more than requests.
        """

    def run_tests(self, source: str, tests: Sequence[judging.UnitTest]) -> TestResult:
        """Runs unit tests of one kind (see `judging`).

        Calls and expressions are asked one after another of one process, so that the limits hold
        for all of them together; each StdinTest gets a process of its own, and after one that
        reaches a limit the rest count as failed without being run.
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
                failures += ["not run, because an earlier test reached a limit"] * (
                    len(tests) - len(failures)
                )
                break
        return judging.judge_outputs(failures)

    def run_tests_batch(
        self, jobs: Sequence[tuple[str, Sequence[judging.UnitTest]]]
    ) -> list[TestResult]:
        """`run_tests` on each (source, tests), as many at a time as there are workers.

        Results are in the order of the jobs.
        """
        return list(self._threads.map(lambda job: self.run_tests(*job), jobs))

    def evaluate_expression(
        self, expression: str, variables: Mapping[str, Any]
    ) -> ExpressionResult:
        """The value of a Python expression, such as "a * b + 3", for these variables."""
        judging.check_unit_tests([judging.ExpressionTest(variables, expected=None)])
        result, answers = self._ask("expressions", expression, [dict(variables)])
        if answers[:1] == [judging.LOADED]:
            answers = answers[1:]
        if not answers:
            return ExpressionResult(False, None, f"no value: it {judging.describe_stop(result)}")
        try:
            return ExpressionResult(True, judging.decode(answers[0]), "evaluated")
        except ValueError as error:
            return ExpressionResult(False, None, str(error))

    def close(self) -> None:
        """Ends the workers. Further runs raise."""
        self._threads.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
