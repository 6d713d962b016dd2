"""Measures accuracy against compute, for search methods at several budgets on the same problems."""

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
    """A method to compare, with its verifier (None if it needs none)."""

    method: SearchMethod
    verifier: Verifier | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """The results of one method at one budget on n problems.

    Attributes:
      method: the method's name in reports.
      budget: the budget, in responses.
      correct: bool `[n]`, whether the task's verifier accepted each answer.
      spent: maps each field of `Spent` to its values `[n]`.
    """

    method: str
    budget: int
    correct: np.ndarray
    spent: Mapping[str, np.ndarray]

    @property
    def accuracy(self) -> float:
        """Share of problems with a correct answer."""
        return float(self.correct.mean())

    @property
    def tokens(self) -> np.ndarray:
        """Generated tokens of each problem, `[n]`."""
        return self.spent["generated_tokens"]

    def summary(self) -> dict[str, Any]:
        """Returns the entry for `report.json`; costs are means over the problems."""
        means = {name: float(np.mean(values)) for name, values in self.spent.items()}
        return {
            "method": self.method,
            "budget": self.budget,
            "tokens": means.pop("generated_tokens"),
            **means,
            "accuracy": shares_with_ci(self.correct.astype(float)),
        }

    def record(self) -> dict[str, Any]:
        """Returns all fields in a form that JSON can store; `from_record` reads it."""
        spent = {name: values.tolist() for name, values in self.spent.items()}
        correct = self.correct.astype(int).tolist()
        return {"method": self.method, "budget": self.budget, "correct": correct, "spent": spent}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Measured":
        """Makes a `Measured` from what `record` returned."""
        spent = {name: np.array(values) for name, values in record["spent"].items()}
        correct = np.array(record["correct"], bool)
        return cls(record["method"], record["budget"], correct, spent)


def measure(
    name: str, entry: Entry, policy: Policy, problems: Sequence[Problem], budget: int, seed: int
) -> tuple[Measured, list[SearchResult]]:
    """Runs a method on some problems and grades its answers with the task's verifier.

    Args:
      name: the method's name in reports.
      entry: the method and its verifier.
      policy: the model that the method searches.
      problems: the problems.
      budget: compute for each problem, in responses.
      seed: seed of the search.
    """
    results = entry.method(policy, entry.verifier, problems, budget, seed=seed)
    verdicts = policy.task.verify_all(problems, [result.answer or "" for result in results])
    spent = {
        field.name: np.array([getattr(result.spent, field.name) for result in results])
        for field in dataclasses.fields(Spent)
    }
    correct = np.array([verdict.correct for verdict in verdicts])
    return Measured(name, budget, correct, spent), results


def difference(better: Measured, other: Measured) -> dict[str, Any]:
    """Returns the mean difference in accuracy on the same problems, with a paired 95 % interval."""
    return mean_with_ci(better.correct.astype(float) - other.correct.astype(float))


def cheapest(curve: Sequence[Measured], accuracy: float) -> Measured | None:
    """Returns the measurement with the fewest tokens among those that reach an accuracy.

    Returns None if no measurement reaches it.
    """
    enough = [each for each in curve if each.accuracy >= accuracy]
    return min(enough, key=lambda each: each.tokens.mean(), default=None)
