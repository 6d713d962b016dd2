"""Fits routers of every kind to outcomes, calibrates them, and compares them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reasoning.router import knn, linear, metrics
from reasoning.router.calibration import Calibration, Outcomes
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.outcomes import OutcomeTable
from reasoning.router.predictor import Predictions, Predictor
from reasoning.router.route import Promise, Route
from reasoning.router.rules import RulesPredictor

# (routes, queries, outcomes, seed) -> predictor.
Fit = Callable[[Sequence[Route], Sequence[str], Outcomes, int], Predictor]
FEWEST = 20


def _rules(
    routes: Sequence[Route], queries: Sequence[str], outcomes: Outcomes, seed: int
) -> RulesPredictor:
    del queries, outcomes, seed  # Rules learn nothing.
    return RulesPredictor(routes)


FITS: dict[str, Fit] = {"rules": _rules, "knn": knn.fit, "linear": linear.fit}


def check_size(table: OutcomeTable) -> None:
    """Raises `ValueError` if there are too few outcomes to fit and calibrate on."""
    if len(table.questions) < FEWEST or len(table.names) < 2:
        raise ValueError(
            f"{len(table.questions)} questions and {len(table.names)} routes: a router needs at"
            f" least {FEWEST} questions and 2 routes"
        )


def cross_validated(
    fit: Fit, routes: Sequence[Route], table: OutcomeTable, folds: int, seed: int
) -> Predictions:
    """Predicts every question by a predictor that was fitted without its fold."""
    n = len(table.questions)
    order = np.random.default_rng(seed).permutation(n)
    accuracy, cost = np.zeros((n, len(routes))), np.zeros((n, len(routes)))
    for held in np.array_split(order, folds):
        known = table[np.setdiff1d(order, held)]
        predictor = fit(routes, known.questions, known.outcomes, seed)
        found = predictor.predict([table.questions[i] for i in held])
        accuracy[held], cost[held] = found.accuracy, found.cost
    return Predictions(accuracy, cost)


def figures(table: OutcomeTable, predicted: dict[str, Predictions], seed: int) -> dict[str, Any]:
    """Returns the figures of each kind, and those of random and oracle beside them.

    Args:
      table: the outcomes.
      predicted: kind -> predictions for all questions, made without knowing their outcomes.
      seed: of random choices and bootstrap resamples.
    """
    n, routes = table.outcomes.correct.shape
    rng = np.random.default_rng(seed)
    # One random number decides between all routes, as if a share of queries went to each.
    noise = np.tile(rng.uniform(0, 1, (n, 1)), (1, routes)) * np.linspace(0, 1, routes)
    order = np.argsort(np.argsort(table.outcomes.cost.mean(0)))
    costs = np.tile(table.outcomes.cost.mean(0), (n, 1))
    rivals = {
        "random": Predictions(noise[:, order], costs),
        "oracle": metrics.oracle(table.outcomes),
    }
    return {
        kind: metrics.report(table.outcomes, each, seed=seed)
        | {"curve": metrics.curve(table.outcomes, each)}
        for kind, each in (predicted | rivals).items()
    }


def fit_router(
    fit: Fit,
    routes: Sequence[Route],
    table: OutcomeTable,
    *,
    held_out: float,
    promise: Promise | None,
    seed: int,
) -> PredictiveRouter:
    """Fits a router on some of the questions and calibrates it on the others.

    Args:
      fit: such as an entry of `FITS`.
      routes: one for each column of the table.
      table: the outcomes.
      held_out: the share of the questions to calibrate on.
      promise: what the router keeps to by default.
      seed: decides which questions are held out.

    Raises:
      ValueError: the promise cannot be kept.
    """
    order = np.random.default_rng(seed).permutation(len(table.questions))
    size = int(len(order) * held_out)
    held, known = table[order[:size]], table[order[size:]]
    predictor = fit(routes, known.questions, known.outcomes, seed)
    reference = known.outcomes.best_route()
    scale = max(float(known.outcomes.cost[:, reference].mean()), 1e-9)
    calibration = Calibration(held.outcomes, predictor.predict(held.questions), reference, scale)
    return PredictiveRouter(predictor, calibration, promise)
