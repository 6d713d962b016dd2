"""What every search method takes and gives."""

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
    """The model that is searched, and how.

    Attributes:
      generator: samples whole responses.
      steps: extends partial ones; None for methods that do not search over steps.
      task: finds and compares answers. Its verifier is never asked: that would be the oracle.
      template: question -> prompt.
      max_new_tokens: of a response.
      step_tokens: of a reasoning step; one that is longer is cut there, and goes on as another.
      typical_tokens: of a response; what one unit of a search's budget buys.
      delimiter: ends a step.
      sampling: how steps and responses are drawn.
      model: size of the generator's model, to count FLOPs; None where unknown.
      rows: paths in flight at a time, of all problems together.
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
        """What every prompt ends in and every response begins with; see `opened_by`."""
        return opened_by(self.template("a question"))

    def __post_init__(self):
        for name in ("max_new_tokens", "step_tokens", "typical_tokens", "rows"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.step_tokens > self.max_new_tokens:
            raise ValueError(
                f"step_tokens={self.step_tokens} exceeds max_new_tokens={self.max_new_tokens}:"
                " a step cannot be longer than its response"
            )


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search answers, and what that took.

    Attributes:
      answer: None where no candidate has one.
      chain: the reasoning behind it, apart from it: to be shown (explicit reasoning) or kept from
        the user (hidden). Empty where the response has no think block.
      response: the chosen candidate's whole response.
      candidates: all final ones.
    """

    problem: Problem
    answer: str | None
    chain: str
    response: str
    candidates: tuple[Candidate, ...]
    spent: Spent


class SearchMethod(Protocol):
    """A way to spend compute on an answer."""

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """Answers each problem.

        Args:
          verifier: scores responses or steps; None where the method needs none.
          budget: compute for each problem, in responses of `policy.typical_tokens` tokens.

        Raises:
          ValueError: a budget or setting that allows nothing, or a generator or verifier that
            lacks what the method needs; before anything is sampled.
        """
        ...


def check_budget(budget: int, name: str, least: int = 1) -> None:
    """Raises `ValueError` for a budget that is no whole number or below `least`."""
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget < least:
        raise ValueError(
            f"budget={budget!r} of {name}: it must be a whole number of responses, at least {least}"
        )


def require_verifier(verifier: Verifier | None, name: str) -> Verifier:
    """The verifier; raises `ValueError` where there is none."""
    if verifier is None:
        raise ValueError(f"{name} needs a verifier: give one, such as launch.run_search trains")
    return verifier


def require_steps(policy: Policy, name: str) -> StepGenerator:
    """The step generator; raises `ValueError` where there is none."""
    if policy.steps is None:
        raise ValueError(f"{name} searches over steps: give the policy a step generator")
    return policy.steps


def meters(policy: Policy, verifier: Verifier | None, lengths: Sequence[int]) -> list[Meter]:
    """One for each problem, its prompt of so many tokens already counted."""
    scored_by = None if verifier is None else verifier.config
    made = [Meter(policy.model, scored_by) for _ in lengths]
    for meter, length in zip(made, lengths, strict=True):
        meter.prefill(length)
    return made


def prompt_lengths(policy: Policy, prompts: Sequence[str]) -> list[int]:
    """In tokens; 0 where the generator keeps its tokenizer to itself."""
    tokenizer = getattr(policy.generator, "tokenizer", None)
    if tokenizer is None:
        return [0] * len(prompts)
    return [len(ids) for ids in tokenizer.encode_batch(prompts)]


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
    """Completions of prompts whose reading has been counted; sampling them is counted here."""
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
    """A completion with the answer found in it."""
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
    """Results whose answers are those of the chosen candidates."""
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
