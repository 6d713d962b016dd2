"""Accuracy reward: is the final answer right? (DeepSeek-R1, arXiv:2501.12948, 2.2.2)"""

import dataclasses
import functools
from collections.abc import Sequence

from reasoning.problem import Problem
from reasoning.response import THINK_OPEN
from reasoning.tasks import get_task
from rl.rewards import RewardResult, Sample
from rl.rewards.format import opens_chain, parse_completion

_task = functools.cache(get_task)


@dataclasses.dataclass(frozen=True)
class AccuracyReward:
    """1 if the verifier of the problem's task accepts the answer, else 0.

    Verifiers keep their own limits of time and memory, in worker processes where they need them.

    Attributes:
      require_format: read the answer from the answer block of a well-formed response only; anything
        else earns 0. Else it is found leniently (`Task.extract`: last box, last number,
        ...), though never inside the think block.
    """

    require_format: bool = False

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        return self.score_batch([Sample(prompt, completion, problem, num_tokens=0)])[0]

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        results: list[RewardResult | None] = [None] * len(samples)
        to_verify: dict[str, list[tuple[int, str]]] = {}
        for i, sample in enumerate(samples):
            answer, reason = self._answer(sample)
            if answer is None:
                results[i] = RewardResult(0.0, reason)
            else:
                to_verify.setdefault(sample.problem.task, []).append((i, answer))
        for task, answers in to_verify.items():
            problems = [samples[i].problem for i, _ in answers]
            verdicts = _task(task).verify_all(problems, [answer for _, answer in answers])
            for (i, _), verdict in zip(answers, verdicts, strict=True):
                results[i] = RewardResult(float(verdict.correct), verdict.reason)
        return results

    def _answer(self, sample):
        """The answer, or None and why there is none."""
        if self.require_format:
            response = parse_completion(sample.prompt, sample.completion)
            if not response.well_formed:
                return None, f"not well formed: {response.reason}"
            return response.answer, ""
        opened = THINK_OPEN if opens_chain(sample.prompt) else ""
        answer = _task(sample.problem.task).extract(opened + sample.completion)
        return answer, "no answer found"
