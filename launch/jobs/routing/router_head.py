"""Trains the head of the `hidden` router with the project's own train step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.sharding import make_mesh
from reasoning.router.calibration import Outcomes
from reasoning.router.fitting import Fit
from reasoning.router.hidden import HiddenPredictor, head
from reasoning.router.predictor import Features
from reasoning.router.route import Route
from train.optimizer import make_optimizer
from train.state import TrainState
from train.step import make_train_step

STEPS, WIDTH = 300, 32
_OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "warmup_steps": 20,
    "weight_decay": 1.0,
}
# The cost counts little beside the accuracy, on which the choice depends most.
_COST_WEIGHT = 0.1


def train_head(features: np.ndarray, outcomes: Outcomes, seed: int) -> dict[str, np.ndarray]:
    """Trains a head on all queries at once; see `reasoning.router.hidden.head`.

    Args:
      features: float32 `[n, F]`.
      outcomes: what every route did on the n queries.
      seed: of the initial weights.
    """
    n, routes = outcomes.correct.shape
    fixed = {
        "mean": features.mean(0),
        "deviation": features.std(0) + 1e-3,
        "typical": np.maximum(outcomes.cost.mean(0), 1e-3).astype(np.float32),
    }
    width = features.shape[1]
    share = np.clip(outcomes.correct.mean(0), 0.02, 0.98)
    params = {
        "inner": {
            "kernel": jax.random.normal(jax.random.key(seed), (width, WIDTH)) / width**0.5,
            "bias": jnp.zeros(WIDTH),
        },
        "outer": {
            "kernel": jnp.zeros((WIDTH, 2 * routes)),
            "bias": jnp.concatenate(
                [jnp.array(np.log(share / (1 - share)), jnp.float32), jnp.zeros(routes)]
            ),
        },
    }

    def loss_fn(params: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits_BR, cost_BR = head(_flat(params) | fixed, batch["features"])
        right_BR = batch["correct"]
        entropy_BR = jax.nn.softplus(logits_BR) - right_BR * logits_BR
        ratio_BR = jnp.log((batch["cost"] + 1) / (cost_BR + 1))
        losses_B = (entropy_BR + _COST_WEIGHT * ratio_BR**2).mean(-1)
        return (batch["loss_weights"][:, 0] * losses_B).sum(), {}

    mesh = make_mesh({"data": 1, "fsdp": -1, "tensor": 1}, devices=jax.devices()[:1])
    optimizer = make_optimizer(_OPTIMIZER, params, STEPS)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(
        TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), replicated
    )
    step = make_train_step(loss_fn, optimizer, mesh)
    batch = step.put(
        {
            "features": features.astype(np.float32),
            "correct": outcomes.correct.astype(np.float32),
            "cost": outcomes.cost.astype(np.float32),
            "loss_weights": np.ones((n, 1), np.float32),
        }
    )
    for _ in range(STEPS):
        state, _ = step(state, batch)
    return {name: np.asarray(x) for name, x in (_flat(state.params) | fixed).items()}


def hidden_fit(features: Features) -> Fit:
    """Returns the fit of the `hidden` kind for a model.

    Args:
      features: reads queries with the model. Each query is read once, whatever the folds.
    """
    known: dict[str, np.ndarray] = {}

    def read(queries: Sequence[str]) -> np.ndarray:
        missing = [query for query in dict.fromkeys(queries) if query not in known]
        if missing:
            known.update(zip(missing, features(missing), strict=True))
        return np.stack([known[query] for query in queries])

    def fit(
        routes: Sequence[Route], queries: Sequence[str], outcomes: Outcomes, seed: int
    ) -> HiddenPredictor:
        return HiddenPredictor(routes, read, train_head(read(queries), outcomes, seed))

    return fit


def _flat(params: Any) -> dict[str, Any]:
    return {f"{a}/{b}": x for a, inner in params.items() for b, x in inner.items()}
