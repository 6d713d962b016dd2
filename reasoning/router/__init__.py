"""Chooses for each query how to answer it: route, budget and model. `load` opens a saved router.

`route` holds the interface, one file each the kinds (`rules`, `knn`, `linear`, `hidden`),
`calibration` the promises, `metrics` the figures of reports.
"""

import importlib
from pathlib import Path
from typing import Any

from models.files import read_json
from reasoning.router.choosing import PredictiveRouter, read_calibration
from reasoning.router.predictor import Features
from reasoning.router.route import Decision, Promise, Route, Router

__all__ = ["KINDS", "Decision", "Promise", "Route", "Router", "load", "load_predictor"]

# Kind -> its module, which has `load(directory, routes)`; that of `hidden` also takes the features
# of its model. Modules are imported when used.
KINDS = {
    "rules": "reasoning.router.rules",
    "knn": "reasoning.router.knn",
    "linear": "reasoning.router.linear",
    "hidden": "reasoning.router.hidden",
}


def load(directory: str | Path, features: Features | None = None) -> PredictiveRouter:
    """Opens the router that `launch.run_router` wrote into a folder.

    Args:
      directory: the folder.
      features: reads queries with the model of a router of the kind `hidden`, which needs it; see
        `reasoning.router.hidden`. Other kinds ignore it.

    Raises:
      OSError, ValueError: the folder holds no router, or a damaged one.
    """
    directory = Path(directory)
    about_path = directory / "router.json"
    if not about_path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no router.json: give a folder that launch.run_router wrote"
        )
    about = read_json(about_path, "fit the router again")
    try:
        kind, routes = about["kind"], tuple(Route(**each) for each in about["routes"])
        calibrated, promise = about["calibrated"], about["promise"]
        promise = Promise(**promise) if promise else None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{about_path} describes no router ({error}): fit it again") from None
    predictor = load_predictor(kind, directory, routes, features)
    calibration = None
    if calibrated:
        path = directory / "calibration.npz"
        try:
            calibration = read_calibration(path)
        except (KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is damaged ({error}): fit the router again") from None
    return PredictiveRouter(predictor, calibration, promise)


def load_predictor(
    kind: str, directory: Path, routes: tuple[Route, ...], features: Features | None = None
) -> Any:
    """Reads the predictor of a kind; see `load`.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"router kind={kind!r} is unknown: choose one of {', '.join(KINDS)}")
    arguments = (features,) if kind == "hidden" else ()
    return importlib.import_module(KINDS[kind]).load(directory, routes, *arguments)
