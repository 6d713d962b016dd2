"""Turns a promise (cost, quality, or points lost) into a price of a token, on held-out outcomes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from reasoning.router.predictor import Predictions, price_choice
from reasoning.router.route import COST, LOSS, QUALITY, Promise

# Prices to choose from, in accuracy for the cost that the reference route has on average. They are
# fixed beforehand, since a grid that saw the held-out outcomes would void the promise of a loss.
GRID = (0.0, *np.geomspace(1e-3, 10.0, 48).tolist(), float("inf"))
# Below 2, since a bet of 2 could lose everything on the first loss.
LARGEST_BET = 1.8
# Stands for a threshold that no price has: always the reference route.
ALWAYS_REFERENCE = -1.0


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What every route did on n queries.

    Attributes:
      correct: `[n, R]`, 1 for a right answer; the mean over several tries lies between 0 and 1.
      cost: `[n, R]`, what the route cost, in tokens or in any other unit.
    """

    correct: np.ndarray
    cost: np.ndarray

    def __getitem__(self, rows: Any) -> "Outcomes":
        """Returns the outcomes of some of the queries."""
        return Outcomes(self.correct[rows], self.cost[rows])

    def best_route(self) -> int:
        """Returns the route with the highest accuracy; of equal ones the cheapest."""
        return int(np.lexsort((self.cost.mean(0), -self.correct.mean(0)))[0])


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Held-out outcomes with the predictions for them, from which a promise gets its price.

    Attributes:
      outcomes: of m queries that the predictor was not fitted on.
      predictions: for the same queries.
      reference: the route whose accuracy a "loss" promise is about. It must have been chosen
        without the held-out outcomes: the best fixed route of the queries that were fitted on.
      scale: the mean cost of the reference route on the queries that were fitted on.
    """

    outcomes: Outcomes
    predictions: Predictions
    reference: int
    scale: float

    def prices(self) -> np.ndarray:
        """Returns the prices of a unit of cost that a threshold may be, from low to high."""
        return np.array(GRID) / self.scale

    def threshold(self, promise: Promise) -> float:
        """Returns the price that keeps a promise; `ALWAYS_REFERENCE` if no price does.

        Raises:
          ValueError: not even the cheapest route keeps the cost, or none reaches the quality.
        """
        find: dict[str, Callable[[Promise], float]] = {
            COST: self._for_cost, QUALITY: self._for_quality, LOSS: self._for_loss
        }  # fmt: skip
        return find[promise.kind](promise)

    def chosen(self, price: float) -> np.ndarray:
        """Returns the route of every held-out query at a price, int `[m]`."""
        return choose(self.predictions, price, self.reference)

    def _at(self, price: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns correct and cost of the chosen routes, both `[m]`."""
        rows, chosen = np.arange(len(self.outcomes.correct)), self.chosen(price)
        return self.outcomes.correct[rows, chosen], self.outcomes.cost[rows, chosen]

    def _for_cost(self, promise: Promise) -> float:
        """Returns the lowest price from which on all higher prices keep the cost, too."""
        found = None
        for price in self.prices()[::-1]:
            if (cost := self._at(price)[1].mean()) > promise.value:
                if found is None:
                    raise ValueError(
                        f"promise cost={promise.value:g}: the cheapest choice costs {cost:.4g} a"
                        " query on the held-out outcomes: promise at least that"
                    )
                break
            found = price
        assert found is not None
        return float(found)

    def _for_quality(self, promise: Promise) -> float:
        """Returns the highest price up to which all prices keep the quality."""
        found = None
        for price in self.prices():
            if self._at(price)[0].mean() < promise.value:
                break
            found = float(price)
        if found is not None:
            return found
        best = self.outcomes.correct[:, self.reference].mean()
        if best >= promise.value:
            return ALWAYS_REFERENCE
        raise ValueError(
            f"promise quality={promise.value:g}: the router reaches {self._at(0.0)[0].mean():.3f}"
            f" and the best fixed route {best:.3f} on the held-out outcomes: promise less"
        )

    def _for_loss(self, promise: Promise) -> float:
        """Tests prices from low to high and returns the last before the first that fails.

        Fixed-sequence testing ("Learn then test", arXiv:2110.01052): the true loss of the result
        exceeds the promised one with a probability of at most 1 - confidence, whatever the
        predictions are worth.
        """
        found = ALWAYS_REFERENCE
        reference = self.outcomes.correct[:, self.reference]
        for price in self.prices():
            lost = reference - self._at(price)[0]
            if loss_p_value(lost, promise.value) > 1 - promise.confidence:
                break
            found = float(price)
        # The reference route loses nothing against itself, so it may always be taken instead.
        dear = found != ALWAYS_REFERENCE and (
            self._at(found)[1].mean() > self.outcomes.cost[:, self.reference].mean()
        )
        return ALWAYS_REFERENCE if dear else found


def choose(predictions: Predictions, price: float, reference: int) -> np.ndarray:
    """Returns the route of each query at a price that `Calibration.threshold` gave, int `[n]`."""
    if price == ALWAYS_REFERENCE:
        return np.full(len(predictions.accuracy), reference)
    return price_choice(predictions.accuracy, predictions.cost, price)


def loss_p_value(lost: np.ndarray, allowed: float) -> float:
    """Returns a p-value of the hypothesis that the mean loss exceeds `allowed`.

    It holds for any number of independent losses between -1 and 1. It is the betting bound of
    Waudby-Smith and Ramdas (arXiv:2010.09686) that risk-controlling prediction sets use
    (arXiv:2101.02703, proposition 5); small variance makes it small.

    Args:
      lost: `[n]`, from -1 (the router alone is right) to 1 (the reference alone is right).
      allowed: the mean loss that is allowed.
    """
    if not len(lost):
        return 1.0
    n, scaled, limit = len(lost), (lost + 1) / 2, (allowed + 1) / 2
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(scaled)) / (count + 1)
    variance = (0.25 + np.cumsum((scaled - mean) ** 2)) / (count + 1)
    # Each bet may depend on earlier losses only. The logarithm is that of 1 / 0.05: it sets the
    # size of the bets, and the p-value holds for any size.
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.minimum(LARGEST_BET, np.sqrt(2 * np.log(20) / (n * before)))
    capital = np.cumsum(np.log1p(bets * (limit - scaled)))
    return float(min(1.0, np.exp(-capital.max())))
