"""Defines a problem, the verdict on an answer to it, and a worked solution of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its reference answer.

    Attributes:
      task: name of its task in `reasoning.tasks`; the task verifies answers.
      question: the question in plain text, without a prompt template.
      answer: the reference answer; for code, a reference expression or program.
      metadata: further data that JSON can store, such as the language, the level, unit tests or the
        reasoning-gym entry.
    """

    task: str
    question: str
    answer: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether an answer is correct, with the reason in words."""

    correct: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class WorkedSolution:
    """A solution written out step by step.

    Attributes:
      steps: the steps, one line each, without the answer.
      answer: the answer that the solution arrives at.
      first_error: index of the first wrong step, or `len(steps)` if only the answer is wrong; None
        if the solution is right.
      kind: one word for the kind of error; None if the solution is right.
    """

    steps: tuple[str, ...]
    answer: str
    first_error: int | None = None
    kind: str | None = None
