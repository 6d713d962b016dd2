"""A problem to reason about, and the verdict on an answer to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its reference answer.

    Attributes:
        task: Registry name of the task it belongs to, which decides the verifier.
        question: What the user asks, in plain text, without a prompt template.
        answer: Reference answer (for code: a reference expression or program).
        metadata: JSON-able extras, such as the language, the level, unit tests or the
            reasoning-gym entry.
    """

    task: str
    question: str
    answer: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether an answer is correct, and in words why."""

    correct: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class WorkedSolution:
    """A solution written out step by step.

    Attributes:
      steps: one line each, without the answer.
      first_error: index of the first wrong step, `len(steps)` where it is the answer; None in a
        right solution.
      kind: of the error, in a word; None in a right solution.
    """

    steps: tuple[str, ...]
    answer: str
    first_error: int | None = None
    kind: str | None = None
