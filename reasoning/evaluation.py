"""Scores a generator on tasks: pass@1, win rate, format, language, self-checks, response length."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models import processes
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
    """A graded response to one problem."""

    problem: Problem
    prompt: str
    completion: Completion
    grade: Grade

    @property
    def verdict(self) -> Verdict:
        """Returns whether the answer is right, and why."""
        return self.grade.verdict

    @property
    def response(self) -> Response:
        """Returns the whole response, parsed."""
        return self.grade.response

    @property
    def well_formed(self) -> bool:
        """Returns whether the response has the R1 format."""
        return self.response.well_formed

    def record(self) -> dict[str, Any]:
        """Returns the fields of a JSONL record."""
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
    task: Task,
    problems: Sequence[Problem],
    prompts: Sequence[str],
    samples: Sequence[Sequence[Completion]],
) -> list[list[Graded]]:
    """Grades every completion by its answer, with or without tags.

    The grades agree with the rewards `accuracy` (without `require_format`) and `format`, so a base
    model that answers without tags still gets credit.

    Args:
      task: the task that extracts and verifies answers.
      problems: one problem for each prompt.
      prompts: texts of the prompts.
      samples: the completions of each prompt.
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
        verify=verified,
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
      generator: samples the responses.
      tasks: domain, such as `math` -> the task and its problems.
      template: maps a question to a prompt.
      num_samples: responses for each problem. A task's figure, such as pass@1, is the mean of its
        `score` over the responses, then over problems.
      max_new_tokens: largest length of a response.
      sampling: parameters of the sampler.
      seed: seed of the sampler.

    Returns:
      The metrics of `report.json`, each `{"mean", "ci95", "n", "seeds"}` with the problem as the
      sampling unit; and every graded response.
    """
    prompts = {
        domain: [template(problem.question) for problem in problems]
        for domain, (_, problems) in tasks.items()
    }
    # One call for all domains compiles one shape, and no domain waits for another's stragglers.
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
    """Measures the accuracy of a majority vote over n samples, and the share with any right sample.

    The arguments are those of `evaluate`; `num_samples` is n.

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
        verdicts = verified(
            task,
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


def verified(task: Task, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
    """Verifies answers; of several processes, each verifies its share."""

    def verify(share: Sequence[tuple[Problem, str]]) -> list[Any]:
        found = task.verify_all([problem for problem, _ in share], [answer for _, answer in share])
        return [dataclasses.astuple(verdict) for verdict in found]

    rows = processes.divided(list(zip(problems, answers, strict=True)), verify)
    return [Verdict(*row) for row in rows]


def _candidate(task: Task, text: str, completion: Completion) -> Candidate:
    ended = completion.finish == "stop"
    return Candidate(text, task.extract(text), None, len(completion.token_ids), ended)


def _format(graded: Sequence[Sequence[Graded]]) -> dict[str, Any]:
    """Returns the share of well-formed responses; `graded` has one row for each problem."""
    return shares_with_ci([np.mean([g.well_formed for g in row]) for row in graded])


def _score(task: Task, graded: Graded) -> float:
    return task.score(graded.problem, graded.grade.answer or "", graded.verdict)


def _checks_itself(graded: Graded) -> bool:
    """Returns whether the chain, or a response without tags, has a self-check."""
    chain = graded.response.chain
    return count_self_checks(graded.grade.text if chain is None else chain) > 0


def _consistency(graded: Graded) -> float | None:
    return consistency(graded.completion.text, graded.problem)
