"""Code reward: does the program pass its unit tests? (DeepSeek-R1, arXiv:2501.12948, 2.2.2)"""

import dataclasses
import functools
from collections.abc import Sequence

from reasoning.code_runner import CallTest, CodeRunner, parse_unit_test
from reasoning.code_runner.programs import find_program
from reasoning.problem import Problem
from reasoning.response import after_chain, parse_response, whole_response
from rl.rewards import RewardResult, Sample


@dataclasses.dataclass(frozen=True)
class CodeReward:
    """1 if the program passes all unit tests of the problem, else 0; run in the sandbox.

    The tests are the problem's metadata `tests`, records of `reasoning.code_runner`:
    `{"call", "expected"}`, `{"variables", "expected"}` or `{"stdin", "stdout"}`. A problem without
    any earns 0.

    Attributes:
      require_format: if set, read the program only from the answer block of a well-formed response.
        Otherwise the search is lenient, but never inside the think block.
        `reasoning.code_runner.programs.find_program` selects the code blocks.
      partial: earn the share of passed tests instead of all or nothing. A program that hard-codes
        some results then earns something too.
      workers: number of programs that run at a time.
    """

    require_format: bool = False
    partial: bool = False
    workers: int = 2

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        return self.score_batch([Sample(prompt, completion, problem, num_tokens=0)])[0]

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        results = [RewardResult(0.0, "")] * len(samples)  # Each place is set below.
        jobs, places = [], []
        for i, sample in enumerate(samples):
            tests = [parse_unit_test(record) for record in sample.problem.metadata.get("tests", ())]
            called = [test.call for test in tests if isinstance(test, CallTest)]
            program = self._program(sample, called)
            if not tests or not program:
                reason = "no program found" if tests else "the problem has no unit tests"
                results[i] = RewardResult(0.0, reason)
            else:
                jobs.append((program, tests))
                places.append(i)
        for i, result in zip(places, _runner(self.workers).run_tests_batch(jobs), strict=True):
            share = result.passed / result.total
            earned = share if self.partial else float(result.all_passed)
            results[i] = RewardResult(earned, result.reason)
        return results

    def _program(self, sample: Sample, called: Sequence[str]) -> str:
        text = whole_response(sample.prompt, sample.completion)
        response = parse_response(text)
        if self.require_format:
            return find_program(response.answer or "", called) if response.well_formed else ""
        visible = after_chain(text)
        if "<answer>" in visible or "</answer>" in visible:
            return find_program(response.answer or "", called)
        return find_program(visible, called)


@functools.cache
def _runner(workers: int) -> CodeRunner:
    return CodeRunner(num_workers=workers)
