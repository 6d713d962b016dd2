"""The interface of all search methods: `Policy` in, `SearchResult` out, and shared helpers."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.config import ModelConfig
from models.decoding.sampling import SamplingParams
from reasoning.budget import Meter, Spent
from reasoning.candidate import Candidate
from reasoning.generation.generator import Completion, Generator
from reasoning.generation.steps import StepGenerator
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate
from reasoning.response import opened_by, parse_response
from reasoning.tasks import Task
from reasoning.verifiers import Verifier


@dataclasses.dataclass(frozen=True)
class Policy:
    """The model that a method searches, together with its prompt, limits and sampling settings.

    Attributes:
      generator: samples whole responses.
      steps: extends partial responses; None if no method searches over steps.
      task: extracts and compares answers. Methods never call its verifier, which knows the
        reference answers.
      template: turns a question into a prompt.
      max_new_tokens: most tokens of a response.
      step_tokens: most tokens of a reasoning step. A longer step is cut here, and the rest counts
        as the next step.
      typical_tokens: tokens of a typical response; one unit of a search budget buys this many.
      delimiter: text that ends a step.
      sampling: sampling settings for steps and responses.
      model: config of the generator's model, to count FLOPs; None if unknown.
      rows: paths that are extended at the same time, over all problems.
    """

    generator: Generator
    steps: StepGenerator | None
    task: Task
    template: PromptTemplate
    max_new_tokens: int
    step_tokens: int
    typical_tokens: int
    delimiter: str = "\n"
    sampling: SamplingParams = SamplingParams()
    model: ModelConfig | None = None
    rows: int = 256

    @functools.cached_property
    def opening(self) -> str:
        """The text that ends every prompt and counts as the start of every response.

        See `reasoning.response.opened_by`.
        """
        return opened_by(self.template("a question"))

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "step_tokens", "typical_tokens", "rows"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.step_tokens > self.max_new_tokens:
            raise ValueError(
                f"step_tokens={self.step_tokens} exceeds max_new_tokens={self.max_new_tokens}:"
                " a step cannot be longer than its response; lower step_tokens"
            )


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The answer that a search gave to one problem, and the compute that it spent.

    Attributes:
      problem: the problem.
      answer: the chosen candidate's answer; None if no candidate has an answer.
      chain: the chain of thought, without the answer, so that a caller can show it (explicit
        reasoning) or hide it. Empty if the response has no think block.
      response: the whole response of the chosen candidate.
      candidates: all final candidates.
      spent: the compute that the search used for this problem.
    """

    problem: Problem
    answer: str | None
    chain: str
    response: str
    candidates: tuple[Candidate, ...]
    spent: Spent


class SearchMethod(Protocol):
    """A function that spends a budget of compute on each problem and returns an answer."""

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """Returns one result for each problem.

        Args:
          policy: the model, its task and its sampling settings.
          verifier: scores responses or steps; None if the method needs no verifier.
          problems: the problems to answer.
          budget: compute for each problem, in responses of `policy.typical_tokens` tokens.
          seed: seed of all random draws.

        Raises:
          ValueError: the budget or a setting is out of range, or the method needs a verifier or a
            feature of the generator that is missing. Raised before anything is sampled.
        """
        ...


def check_budget(budget: int, name: str, least: int = 1) -> None:
    """Checks that a budget is a whole number and at least `least`.

    Args:
      budget: the budget of a search, in responses.
      name: the method's name, for the error message.
      least: the smallest budget that the method accepts.

    Raises:
      ValueError: the budget is not a whole number, or is too small.
    """
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget < least:
        raise ValueError(
            f"budget={budget!r} of {name} must be a whole number of responses, at least {least}"
        )


def require_verifier(verifier: Verifier | None, name: str) -> Verifier:
    """Returns the verifier; raises `ValueError` if it is None."""
    if verifier is None:
        raise ValueError(f"{name} needs a verifier: pass one, such as launch.run_search trains")
    return verifier


def require_steps(policy: Policy, name: str) -> StepGenerator:
    """Returns the policy's step generator; raises `ValueError` if the policy has none."""
    if policy.steps is None:
        raise ValueError(
            f"{name} searches over steps, but the policy has no step generator: set Policy.steps"
        )
    return policy.steps


def meters(policy: Policy, verifier: Verifier | None, lengths: Sequence[int]) -> list[Meter]:
    """Returns one meter for each problem, with the prompt already counted.

    Args:
      policy: its model's size gives the FLOPs of generated tokens.
      verifier: its model's size gives the FLOPs of scoring; None if no verifier is used.
      lengths: tokens of each problem's prompt.
    """
    scored_by = None if verifier is None else verifier.config
    made = [Meter(policy.model, scored_by) for _ in lengths]
    for meter, length in zip(made, lengths, strict=True):
        meter.prefill(length)
    return made


def prompt_lengths(policy: Policy, prompts: Sequence[str]) -> list[int]:
    """Returns the length of each prompt in tokens; zeros if the generator has no `tokenizer`."""
    tokenizer = getattr(policy.generator, "tokenizer", None)
    if tokenizer is None:
        return [0] * len(prompts)
    return [len(ids) for ids in tokenizer.encode_prompts(prompts)]


def sample(
    policy: Policy,
    prompts: Sequence[str],
    num_samples: int,
    counters: Sequence[Meter],
    *,
    seed: int,
    sampling: SamplingParams | None = None,
    max_new_tokens: int | None = None,
    stop: Sequence[str] = (),
) -> list[list[Completion]]:
    """Samples `num_samples` completions of each prompt and counts the generated tokens.

    It does not count the prompts' own tokens; `meters` or the caller has done that.

    Args:
      policy: gives the generator, and the sampling settings that are not passed here.
      prompts: the prompts.
      num_samples: completions of each prompt.
      counters: one meter for each prompt.
      seed: seed of the draws.
      sampling: replaces `policy.sampling`.
      max_new_tokens: replaces `policy.max_new_tokens`.
      stop: strings that end a completion.
    """
    groups = policy.generator.generate(
        prompts,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens or policy.max_new_tokens,
        sampling=sampling or policy.sampling,
        stop=stop,
        seed=seed,
    )
    for meter, group, length in zip(counters, groups, prompt_lengths(policy, prompts), strict=True):
        for completion in group:
            meter.generate(len(completion.token_ids), length)
    return groups


def candidate(policy: Policy, completion: Completion, score: float | None = None) -> Candidate:
    """Returns a completion as a candidate, with the answer that the task extracts from it."""
    response = policy.opening + completion.text
    return Candidate(
        response=response,
        answer=policy.task.extract(response),
        score=score,
        tokens=len(completion.token_ids),
        complete=completion.finish == "stop",
    )


def results(
    problems: Sequence[Problem],
    chosen: Sequence[Candidate | None],
    candidates: Sequence[Sequence[Candidate]],
    spent: Sequence[Spent],
) -> list[SearchResult]:
    """Returns one result for each problem, with the answer of its chosen candidate.

    Args:
      problems: the problems.
      chosen: the chosen candidate of each problem; None if there was none to choose.
      candidates: all final candidates of each problem.
      spent: the compute used for each problem.
    """
    made = []
    for problem, winner, each, cost in zip(problems, chosen, candidates, spent, strict=True):
        response = winner.response if winner else ""
        made.append(
            SearchResult(
                problem=problem,
                answer=winner.answer if winner else None,
                chain=parse_response(response).chain or "",
                response=response,
                candidates=tuple(each),
                spent=cost,
            )
        )
    return made
