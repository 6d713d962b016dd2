"""Scores a generator on tasks: pass@1, win rate, format, language, self-checks, response length."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.decoding.sampling import SamplingParams
from reasoning.candidate import Candidate
from reasoning.generation.generator import Completion, Generator
from reasoning.grading import Grade, grade_completions
from reasoning.problem import Problem, Verdict
from reasoning.prompts import PromptTemplate
from reasoning.response import Response, whole_response
from reasoning.statistics import mean_with_ci, shares_with_ci
from reasoning.tasks import Task
from reasoning.text_measures.languages import consistency
from reasoning.text_measures.reflection import count_self_checks
from reasoning.voting import elect


@dataclasses.dataclass(frozen=True)
class Graded:
    """One response to one problem, graded."""

    problem: Problem
    prompt: str
    completion: Completion
    grade: Grade

    @property
    def verdict(self) -> Verdict:
        """Whether the answer is right, and why."""
        return self.grade.verdict

    @property
    def response(self) -> Response:
        """The whole response, taken apart."""
        return self.grade.response

    @property
    def well_formed(self) -> bool:
        """Whether the response has the format."""
        return self.response.well_formed

    def record(self) -> dict[str, Any]:
        """For JSONL."""
        return {
            "task": self.problem.task,
            "question": self.problem.question,
            "answer": self.problem.answer,
            "prompt": self.prompt,
            "response": self.completion.text,
            "tokens": len(self.completion.token_ids),
            "correct": self.verdict.correct,
            "reason": self.verdict.reason,
            "well_formed": self.well_formed,
        }


def grade(
    task: Task, problems: Sequence[Problem], prompts: Sequence[str], samples
) -> list[list[Graded]]:
    """Grades every completion by the answer that can be found in it, tagged or not.

    The grades are those of the rewards `accuracy` (without `require_format`) and `format`. So a
    base model that answers without tags gets its due.
    """
    flat = [
        (problem, prompt, completion)
        for problem, prompt, group in zip(problems, prompts, samples, strict=True)
        for completion in group
    ]
    grades = grade_completions(
        [problem for problem, _, _ in flat],
        [prompt for _, prompt, _ in flat],
        [completion.text for _, _, completion in flat],
        lambda _: task,
    )
    graded = iter([Graded(*each, grade) for each, grade in zip(flat, grades, strict=True)])
    return [[next(graded) for _ in group] for group in samples]


def evaluate(
    generator: Generator,
    tasks: Mapping[str, tuple[Task, Sequence[Problem]]],
    template: PromptTemplate,
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: SamplingParams,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], list[Graded]]:
    """Samples and grades responses to the problems of each domain.

    Args:
      tasks: domain, such as `math`, -> task and its problems.
      num_samples: responses a problem; a task's figure, such as pass@1, is the mean of its `score`
        over them, then over problems.

    Returns:
      Metrics as `report.json` has them, each `{"mean", "ci95", "n", "seeds"}` with the problem as
      the unit of chance; and every graded response.
    """
    prompts = {
        domain: [template(problem.question) for problem in problems]
        for domain, (_, problems) in tasks.items()
    }
    # All domains in one call: one shape to compile, and no domain waits for another's stragglers.
    samples = iter(
        generator.generate(
            [prompt for each in prompts.values() for prompt in each],
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
        )
    )
    metrics, everything = {}, []
    for domain, (task, problems) in tasks.items():
        of_domain = [next(samples) for _ in problems]
        graded = grade(task, problems, prompts[domain], of_domain)
        metrics[f"{domain}/{task.figure}"] = shares_with_ci(
            [np.mean([_score(task, g) for g in row]) for row in graded]
        )
        metrics[f"{domain}/format"] = _format(graded)
        everything += graded
    metrics["format"] = _format(everything)
    metrics["self_checks"] = shares_with_ci(
        [np.mean([_checks_itself(g) for g in row]) for row in everything]
    )
    metrics["response_tokens"] = mean_with_ci(
        [np.mean([len(g.completion.token_ids) for g in row]) for row in everything]
    )
    spoken = [[share for g in row if (share := _consistency(g)) is not None] for row in everything]
    if any(spoken):
        metrics["language_consistency"] = shares_with_ci([np.mean(row) for row in spoken if row])
    return metrics, [g for row in everything for g in row]


def evaluate_votes(
    generator: Generator,
    tasks: Mapping[str, tuple[Task, Sequence[Problem]]],
    template: PromptTemplate,
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: SamplingParams,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What many samples of each problem are worth: by majority, and if the right one were known.

    Args:
      tasks: domain -> task and its problems, as in `evaluate`.
      num_samples: n.

    Returns:
      `DOMAIN/majority@n` (self-consistency, arXiv:2203.11171) and `DOMAIN/pass@n` of each domain.
    """
    metrics = {}
    for domain, (task, problems) in tasks.items():
        prompts = [template(problem.question) for problem in problems]
        groups = generator.generate(
            prompts,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
        )
        candidates = [
            [_candidate(task, whole_response(prompt, each.text), each) for each in group]
            for prompt, group in zip(prompts, groups, strict=True)
        ]
        elected = [each.answer if each else None for each in elect(task, problems, candidates)]
        flat = [(p, c.answer) for p, group in zip(problems, candidates) for c in group]
        verdicts = task.verify_all(
            [*problems, *(problem for problem, _ in flat)],
            [answer or "" for answer in (*elected, *(answer for _, answer in flat))],
        )
        correct = np.array([verdict.correct for verdict in verdicts], float)
        of_samples = correct[len(problems) :].reshape(len(problems), num_samples)
        metrics |= {
            f"{domain}/majority@{num_samples}": shares_with_ci(correct[: len(problems)]),
            f"{domain}/pass@{num_samples}": shares_with_ci(of_samples.max(1)),
        }
    return metrics


def _candidate(task: Task, text: str, completion: Completion) -> Candidate:
    ended = completion.finish == "stop"
    return Candidate(text, task.extract(text), None, len(completion.token_ids), ended)


def _format(graded: Sequence[Sequence[Graded]]) -> dict[str, Any]:
    """Share of well-formed responses, from one row for each problem."""
    return shares_with_ci([np.mean([g.well_formed for g in row]) for row in graded])


def _score(task: Task, graded: Graded) -> float:
    return task.score(graded.problem, graded.grade.answer or "", graded.verdict)


def _checks_itself(graded: Graded) -> bool:
    """Whether there is a self-check in the chain, or in a response without tags."""
    chain = graded.response.chain
    return count_self_checks(graded.grade.text if chain is None else chain) > 0


def _consistency(graded: Graded) -> float | None:
    return consistency(graded.completion.text, graded.problem)
