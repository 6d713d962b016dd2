"""The interface of what a router knows: how likely each route is right, and what it costs."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from reasoning.router.route import Route

# Reads queries with a model: queries -> float32 `[n, F]`.
Features = Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions for n queries and R routes.

    Attributes:
      accuracy: `[n, R]`, the probability that a route's answer is right.
      cost: `[n, R]`, the mean cost, in the unit of the outcomes (tokens).
    """

    accuracy: np.ndarray
    cost: np.ndarray


class Predictor(Protocol):
    """One kind of router, such as `rules` or `knn`.

    Attributes:
      routes: the R routes, in the order of the columns of its predictions.
    """

    routes: tuple[Route, ...]

    def predict(self, queries: Sequence[str]) -> Predictions:
        """Predicts accuracy and cost of every route for each query."""
        ...

    def explain(self, query: str) -> str:
        """Says in a few words what the prediction for a query rests on."""
        ...

    def save(self, directory: Path) -> None:
        """Writes what `load` of its module reads."""
        ...


def price_choice(accuracy: np.ndarray, cost: np.ndarray, price: float) -> np.ndarray:
    """Returns the route with the largest `accuracy - price * cost` for each query, int `[n]`.

    A lower price never chooses a route with a lower predicted accuracy or a lower predicted cost.
    Of equal routes the cheapest is chosen. An infinite price chooses the cheapest route.

    Args:
      accuracy: `[n, R]` predicted accuracies.
      cost: `[n, R]` predicted costs.
      price: accuracy that a unit of cost must buy, at least 0.
    """
    worth = accuracy - price * cost if np.isfinite(price) else -cost
    # Routes that are equal but for rounding count as equal.
    equal = worth >= worth.max(1, keepdims=True) - 1e-12
    return np.where(equal, cost, np.inf).argmin(1)
