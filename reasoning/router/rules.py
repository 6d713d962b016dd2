"""The `rules` kind: judges a query by its surface, without any training."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.files import read_json, write_atomically
from reasoning.router import features
from reasoning.router.predictor import Predictions
from reasoning.router.route import (
    ANSWER_TOKENS,
    DIRECT,
    LONG_CHAIN,
    SHORT_CHAIN,
    VERIFIER_SEARCH,
    VOTE,
    Route,
)

# The complexity at which a kind of route is right half of the time, on the scale of
# `features.Surface.complexity`, and how fast accuracy falls from there.
REACH = {DIRECT: 0.3, SHORT_CHAIN: 0.6, LONG_CHAIN: 0.8, VOTE: 0.85, VERIFIER_SEARCH: 0.9}
STEEPNESS = 25.0


class RulesPredictor:
    """Predicts from words, numbers, operators and clauses; see `features.Surface`.

    Args:
      routes: the routes to choose from.
      reach: replaces `REACH`.
    """

    def __init__(self, routes: Sequence[Route], reach: dict[str, float] | None = None):
        self.routes = tuple(routes)
        self.reach = REACH | (reach or {})

    def predict(self, queries: Sequence[str]) -> Predictions:
        """Predicts accuracy and cost of every route; see `Predictor`."""
        asked = np.array([features.surface(query).complexity for query in queries])
        reach = np.array([self.reach[route.kind] for route in self.routes])
        accuracy = 1 / (1 + np.exp(-STEEPNESS * (reach - asked[:, None])))
        # A harder question has a longer chain, up to the budget.
        chain = np.array([route.budget for route in self.routes]) * (0.3 + 0.7 * asked[:, None])
        samples = np.array([route.samples for route in self.routes])
        return Predictions(accuracy, samples * (chain + ANSWER_TOKENS / 2))

    def explain(self, query: str) -> str:
        """Says what was counted in the query."""
        found = features.surface(query)
        if found.small_talk:
            return "small talk"
        return (
            f"complexity {found.complexity:.2f} from {found.words} words, {found.numbers} numbers,"
            f" {found.operators} operators and {found.clauses} clauses"
        )

    def save(self, directory: Path) -> None:
        """Writes the constants."""
        write_atomically(directory / "rules.json", json.dumps(self.reach))


def load(directory: Path, routes: Sequence[Route]) -> RulesPredictor:
    """Reads what `RulesPredictor.save` wrote."""
    return RulesPredictor(routes, read_json(directory / "rules.json", "fit the router again"))
