"""Accuracy against compute: every method at every budget, on the same problems."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reasoning.budget import Spent
from reasoning.problem import Problem
from reasoning.search.interface import Policy, SearchMethod, SearchResult
from reasoning.statistics import mean_with_ci, shares_with_ci
from reasoning.verifiers import Verifier


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method to be compared, with its verifier."""

    method: SearchMethod
    verifier: Verifier | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """How a method did at a budget.

    Attributes:
      correct: bool `[n]`, the task's verdict on the answer to each problem.
      spent: field of `Spent` -> `[n]`.
    """

    method: str
    budget: int
    correct: np.ndarray
    spent: Mapping[str, np.ndarray]

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def tokens(self) -> np.ndarray:
        """Generated tokens of each problem, `[n]`."""
        return self.spent["generated_tokens"]

    def summary(self) -> dict[str, Any]:
        """As `report.json` has it; what was spent is the mean over problems."""
        means = {name: float(np.mean(values)) for name, values in self.spent.items()}
        return {
            "method": self.method,
            "budget": self.budget,
            "tokens": means.pop("generated_tokens"),
            **means,
            "accuracy": shares_with_ci(self.correct.astype(float)),
        }

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        spent = {name: values.tolist() for name, values in self.spent.items()}
        correct = self.correct.astype(int).tolist()
        return {"method": self.method, "budget": self.budget, "correct": correct, "spent": spent}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Measured":
        spent = {name: np.array(values) for name, values in record["spent"].items()}
        correct = np.array(record["correct"], bool)
        return cls(record["method"], record["budget"], correct, spent)


def measure(
    name: str, entry: Entry, policy: Policy, problems: Sequence[Problem], budget: int, seed: int
) -> tuple[Measured, list[SearchResult]]:
    """Runs a method and grades its answers by the task's verifier."""
    results = entry.method(policy, entry.verifier, problems, budget, seed=seed)
    verdicts = policy.task.verify_all(problems, [result.answer or "" for result in results])
    spent = {
        field.name: np.array([getattr(result.spent, field.name) for result in results])
        for field in dataclasses.fields(Spent)
    }
    correct = np.array([verdict.correct for verdict in verdicts])
    return Measured(name, budget, correct, spent), results


def difference(better: Measured, other: Measured) -> dict[str, Any]:
    """Mean difference in accuracy on the same problems, with its paired 95 % interval."""
    return mean_with_ci(better.correct.astype(float) - other.correct.astype(float))


def cheapest(curve: Sequence[Measured], accuracy: float) -> Measured | None:
    """Of a method's measurements that are at least so accurate, the one with the fewest tokens."""
    enough = [each for each in curve if each.accuracy >= accuracy]
    return min(enough, key=lambda each: each.tokens.mean(), default=None)
