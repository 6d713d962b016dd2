"""Checks the router's promise of a loss on real outcomes, and what it saves.

    python -m benchmarks.bench_promises --outcomes=runs/router/outcomes.jsonl \
        --routes direct short_chain@24 long_chain@96 vote@96x8

A predictor is fitted on half of the questions. The other half stands for all queries to come: a
calibration set of its size is drawn from it with replacement, 200 times, and the loss of each
calibrated router against the best fixed route is counted over the whole half.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasoning.router import fitting
from reasoning.router.calibration import Calibration, choose
from reasoning.router.outcomes import OutcomeTable, read_outcomes
from reasoning.router.predictor import Predictions
from reasoning.router.route import LONG_CHAIN, Promise, Route

RESAMPLES, LOSSES = 200, (0.01, 0.02, 0.05, 0.1)


def measure(table: OutcomeTable, routes: Sequence[Route], kind: str, seed: int) -> dict[str, Any]:
    """Returns, for each promised loss, the share of resamples that exceed it, and the mean cost."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.questions))
    known, fresh = table[order[: len(order) // 2]], table[order[len(order) // 2 :]]
    predictor = fitting.FITS[kind](routes, known.questions, known.outcomes, seed)
    predictions = predictor.predict(fresh.questions)
    reference = known.outcomes.best_route()
    scale = max(float(known.outcomes.cost[:, reference].mean()), 1e-9)
    n, correct, cost = len(fresh.questions), fresh.outcomes.correct, fresh.outcomes.cost
    rows, found = np.arange(n), {loss: {"lost": [], "cost": []} for loss in LOSSES}
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, n, n)
        part = Predictions(predictions.accuracy[drawn], predictions.cost[drawn])
        calibration = Calibration(fresh.outcomes[drawn], part, reference, scale)
        for loss, each in found.items():
            price = calibration.threshold(Promise.parse(f"loss={loss}"))
            chosen = choose(predictions, price, reference)
            each["lost"].append(correct[:, reference].mean() - correct[rows, chosen].mean())
            each["cost"].append(cost[rows, chosen].mean() / cost[:, reference].mean())
    return {
        f"loss={loss}": {
            "violations": float(np.mean(np.array(each["lost"]) > loss)),
            "mean_loss": round(float(np.mean(each["lost"])), 4),
            "cost_share": round(float(np.mean(each["cost"])), 3),
        }
        for loss, each in found.items()
    } | {"questions": n}


def main() -> None:
    """Prints the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outcomes", required=True, type=Path)
    parser.add_argument("--routes", nargs="+", required=True)
    parser.add_argument("--costs", nargs="*", default=[], help="NAME=COST")
    parser.add_argument("--kinds", nargs="+", default=["rules", "knn", "linear"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    costs = {name: float(cost) for name, _, cost in (x.rpartition("=") for x in given.costs)}
    table = read_outcomes(given.outcomes, costs, given.routes)

    def route(name: str) -> Route:
        try:
            return Route.parse(name)
        except ValueError:
            return Route(LONG_CHAIN, 1024, model=name)

    routes = tuple(map(route, table.names))
    found = {kind: measure(table, routes, kind, given.seed) for kind in given.kinds}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
