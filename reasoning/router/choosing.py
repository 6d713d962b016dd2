"""`PredictiveRouter`: chooses with a predictor and a price, and keeps promises if calibrated."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from models.files import atomic_file, write_atomically
from reasoning.router.calibration import (
    ALWAYS_REFERENCE,
    Calibration,
    Outcomes,
    choose,
)
from reasoning.router.predictor import Predictions, Predictor
from reasoning.router.route import COST, LOSS, QUALITY, Decision, Promise, Route

# Without a promise: the accuracy that the dearest route must add to be worth its cost.
WORTH_OF_DEAREST = 0.2


class PredictiveRouter:
    """A `Router` that weighs predicted accuracy against predicted cost.

    Args:
      predictor: predicts both for every route.
      calibration: held-out outcomes; None if there are none.
      promise: what to keep to when `choose` is given none.

    Raises:
      ValueError: the promise cannot be kept, or needs held-out outcomes.
    """

    def __init__(
        self,
        predictor: Predictor,
        calibration: Calibration | None = None,
        promise: Promise | None = None,
    ):
        self.predictor, self.calibration, self.promise = predictor, calibration, promise
        dearest = max(route.samples * route.limit for route in predictor.routes)
        self._default = WORTH_OF_DEAREST / (calibration.scale if calibration else dearest)
        self._prices: dict[Promise, float] = {}
        if promise is not None:
            self._price(promise)

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes that may be chosen."""
        return self.predictor.routes

    def choose(self, query: str, promise: Promise | None = None) -> Decision:
        """Chooses a route from the text of the query alone; see `Router`."""
        predicted = self.predictor.predict([query])
        promise = promise or self.promise
        if promise is not None and self.calibration is None:
            chosen = self._uncalibrated(predicted, promise)
        else:
            price = self._default if promise is None else self._price(promise)
            reference = self.calibration.reference if self.calibration else 0
            chosen = int(choose(predicted, price, reference)[0])
        accuracy, cost = predicted.accuracy[0], predicted.cost[0]
        names = [route.name for route in self.routes]
        why = (
            f"{self.predictor.explain(query)}: {names[chosen]} is right with probability"
            f" {accuracy[chosen]:.2f} for {cost[chosen]:.0f} tokens"
        )
        rival = int(accuracy.argmax())
        if rival != chosen:
            why += f"; {names[rival]} with {accuracy[rival]:.2f} for {cost[rival]:.0f}"
        if promise is not None:
            why += f"; promised {promise.kind}={promise.value:g}"
        return Decision(
            self.routes[chosen],
            why,
            dict(zip(names, accuracy.tolist(), strict=True)),
            dict(zip(names, cost.tolist(), strict=True)),
        )

    def _price(self, promise: Promise) -> float:
        if self.calibration is None:
            if promise.kind == LOSS:
                raise ValueError(
                    f"promise loss={promise.value:g} needs held-out outcomes: fit this router with"
                    " launch.run_router"
                )
            return ALWAYS_REFERENCE  # `_uncalibrated` needs no price.
        if promise not in self._prices:
            self._prices[promise] = self.calibration.threshold(promise)
        return self._prices[promise]

    def _uncalibrated(self, predicted: Predictions, promise: Promise) -> int:
        """Chooses by the predictions alone: of the routes that keep the promise, the best one."""
        self._price(promise)
        accuracy, cost = predicted.accuracy[0], predicted.cost[0]
        if promise.kind == QUALITY:
            keeps = accuracy >= promise.value
            chosen = np.where(keeps, cost, np.inf).argmin() if keeps.any() else accuracy.argmax()
        else:
            assert promise.kind == COST
            keeps = cost <= promise.value
            chosen = np.where(keeps, accuracy, -1).argmax() if keeps.any() else cost.argmin()
        return int(chosen)

    def save(self, directory: Path, kind: str) -> None:
        """Writes everything that `reasoning.router.load` reads.

        Args:
          directory: made if it is missing.
          kind: name of the predictor's kind.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.predictor.save(directory)
        if (found := self.calibration) is not None:
            with atomic_file(directory / "calibration.npz", "wb") as file:
                np.savez(
                    file,
                    correct=found.outcomes.correct,
                    cost=found.outcomes.cost,
                    predicted_accuracy=found.predictions.accuracy,
                    predicted_cost=found.predictions.cost,
                    reference=found.reference,
                    scale=found.scale,
                )
        about: dict[str, Any] = {
            "kind": kind,
            "routes": [route.as_dict() for route in self.routes],
            "calibrated": self.calibration is not None,
            "promise": vars(self.promise) if self.promise else None,
        }
        # Written last: a folder that has it is whole.
        write_atomically(directory / "router.json", json.dumps(about, indent=1))


def read_calibration(path: Path) -> Calibration:
    """Reads the held-out outcomes that `PredictiveRouter.save` wrote."""
    with np.load(path, allow_pickle=False) as found:
        return Calibration(
            Outcomes(found["correct"], found["cost"]),
            Predictions(found["predicted_accuracy"], found["predicted_cost"]),
            int(found["reference"]),
            float(found["scale"]),
        )
