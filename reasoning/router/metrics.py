"""Figures of a router: accuracy against cost, APGR and CPT as RouteLLM defines them, calibration.

RouteLLM (arXiv:2406.18665, section 3) has two models. Its performance gap recovered, PGR, is
(router - weak) / (strong - weak) in accuracy; APGR is its mean over all shares of calls to the
strong model, and CPT(x) the least share with which PGR reaches x %. With more routes the strong one
is the best fixed route, the weak one the cheapest, and the share of calls becomes the share of the
cost between them, which for two routes of constant cost is the same number.
"""

import dataclasses
from typing import Any

import numpy as np

from reasoning.router.calibration import Outcomes
from reasoning.router.predictor import Predictions, price_choice

LEVELS = (50, 80, 95)
# The share of the best fixed route's accuracy that `kept_cost` asks for.
KEPT = 0.95
# The figures of `report` that have an interval.
FIGURES = ("apgr", *(f"cpt{level}" for level in LEVELS), "kept_cost")
RESAMPLES = 1000
_SHARES = np.linspace(0, 1, 201)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a router does at every threshold, K of them, from cheap to dear, on n queries.

    Attributes:
      correct: `[K, n]`.
      cost: `[K, n]`.
    """

    correct: np.ndarray
    cost: np.ndarray


def sweep(outcomes: Outcomes, predictions: Predictions, strong: int, most: int = 120) -> Sweep:
    """Returns a router's choices from the cheapest route only to the strong route only.

    Args:
      outcomes: of n queries.
      predictions: for them.
      strong: the best fixed route.
      most: thresholds between.
    """
    n, routes = outcomes.correct.shape
    weak, rows = int(outcomes.cost.mean(0).argmin()), np.arange(n)
    chosen = [np.full(n, weak)]
    if routes == 2 and weak != strong:
        gain = predictions.accuracy[:, strong] - predictions.accuracy[:, weak]
        for edge in np.unique(np.quantile(gain, np.linspace(1, 0, most)))[::-1]:
            chosen.append(np.where(gain >= edge, strong, weak))
    else:
        scale = max(float(predictions.cost.mean(0).max()), 1e-12)
        prices = np.concatenate([np.geomspace(1e2, 1e-4, most), [0.0]]) / scale
        chosen += [price_choice(predictions.accuracy, predictions.cost, p) for p in prices]
    chosen.append(np.full(n, strong))
    at = np.stack(chosen)
    return Sweep(outcomes.correct[rows, at], outcomes.cost[rows, at])


def oracle(outcomes: Outcomes) -> Predictions:
    """Returns the predictions of a router that knows the outcomes."""
    return Predictions(outcomes.correct, outcomes.cost)


def gap_curves(correct: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Returns PGR at each share of `_SHARES` for every resample, `[B, 201]`; NaN without a gap.

    Args:
      correct: `[B, K]`, mean accuracy of B resamples at the thresholds of a `Sweep`, of which the
        first is the weak route and the last the strong one.
      cost: likewise.
    """
    gap, span = correct[:, -1:] - correct[:, :1], cost[:, -1:] - cost[:, :1]
    curves = np.full((len(correct), len(_SHARES)), np.nan)
    for b in np.flatnonzero((gap[:, 0] > 0) & (span[:, 0] > 0)):
        share = (cost[b] - cost[b, 0]) / span[b]
        recovered = (correct[b] - correct[b, 0]) / gap[b]
        inside = share <= 1
        order = np.argsort(share[inside], kind="stable")
        curves[b] = np.interp(_SHARES, share[inside][order], recovered[inside][order])
    return curves


def kept_cost(correct: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Returns the least cost that keeps `KEPT` of the strong route's accuracy, for every resample.

    It is a share of the strong route's cost, so at most 1, since that route is the last threshold.
    For the arguments see `gap_curves`.
    """
    keeps = correct >= KEPT * correct[:, -1:]
    return np.where(keeps, cost / cost[:, -1:], np.inf).min(1)


def report(
    outcomes: Outcomes, predictions: Predictions, *, strong: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Returns APGR, CPT, `kept_cost` and calibration error, with 95 % intervals over the queries.

    The intervals are bootstrapped; the calibration error has none.

    Args:
      outcomes: of n queries that the predictor was not fitted on.
      predictions: for them.
      strong: the best fixed route; None for the best on these queries.
      seed: of the resamples.
    """
    strong = outcomes.best_route() if strong is None else strong
    n = len(outcomes.correct)
    rng = np.random.default_rng(seed)
    weights = np.concatenate(
        [np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)]
    )
    found, total = sweep(outcomes, predictions, strong), weights.sum(1, keepdims=True)
    correct, cost = weights @ found.correct.T / total, weights @ found.cost.T / total
    curves = gap_curves(correct, cost)
    figures: dict[str, Any] = {"apgr": _figure(curves.mean(1), n)}
    for level in LEVELS:
        reached = curves >= level / 100
        least = np.where(reached.any(1), _SHARES[reached.argmax(1)], 1.0)
        least = np.where(np.isnan(curves[:, 0]), np.nan, least)
        figures[f"cpt{level}"] = _figure(least, n)
    figures["kept_cost"] = _figure(kept_cost(correct, cost), n)
    figures["ece"] = expected_calibration_error(outcomes.correct, predictions.accuracy)
    return figures


def _figure(values: np.ndarray, n: int) -> dict[str, Any]:
    """Returns the first value with the central 95 % of the others; None if it has no meaning."""
    if np.isnan(values[0]):
        return {"mean": None, "ci95": [None, None], "n": n, "seeds": 1}
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return {"mean": float(values[0]), "ci95": [float(low), float(high)], "n": n, "seeds": 1}


def curve(outcomes: Outcomes, predictions: Predictions) -> dict[str, list[float]]:
    """Returns mean cost and mean accuracy at every threshold, to be drawn."""
    found = sweep(outcomes, predictions, outcomes.best_route())
    return {"cost": found.cost.mean(1).tolist(), "accuracy": found.correct.mean(1).tolist()}


def expected_calibration_error(
    correct: np.ndarray, predicted: np.ndarray, num_bins: int = 10
) -> float:
    """Returns the mean distance of predicted and true accuracy over bins of equal size.

    Args:
      correct, predicted: `[n, R]`; each route has bins of its own.
      num_bins: bins of a route.
    """
    errors = []
    for right, chance in zip(correct.T, predicted.T, strict=True):
        for rows in np.array_split(np.argsort(chance, kind="stable"), num_bins):
            if len(rows):
                errors.append(len(rows) * abs(right[rows].mean() - chance[rows].mean()))
    return float(np.sum(errors) / correct.size)
