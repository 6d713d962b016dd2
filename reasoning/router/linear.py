"""The `linear` kind: logistic regression on hashed words and counts of the query."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse, special

from models.files import atomic_file
from reasoning.router import features
from reasoning.router.calibration import Outcomes
from reasoning.router.predictor import Predictions
from reasoning.router.route import Route

# Inverse strength of the regularization of accuracy, and strength of that of cost.
INVERSE_PENALTY, COST_PENALTY = 0.5, 3.0


class LinearPredictor:
    """Predicts accuracy by logistic regression and cost by ridge regression, route by route.

    Args:
      routes: the R routes.
      arrays: `accuracy` and `cost` `[R, F]`, `accuracy_bias` and `cost_bias` `[R]`, and the lowest
        and highest costs `cost_range` `[2, R]` that were seen.
    """

    def __init__(self, routes: Sequence[Route], arrays: dict[str, np.ndarray]):
        self.routes, self._arrays = tuple(routes), arrays

    def predict(self, queries: Sequence[str]) -> Predictions:
        """Predicts accuracy and cost of every route; see `Predictor`."""
        vectors, of = _vectors(queries), self._arrays
        accuracy = special.expit(vectors @ of["accuracy"].T + of["accuracy_bias"])
        cost = np.clip(vectors @ of["cost"].T + of["cost_bias"], *of["cost_range"])
        return Predictions(accuracy, cost)

    def explain(self, query: str) -> str:
        """Says what the prediction rests on."""
        found = features.surface(query)
        return f"words of the query, {found.words} in all, and {found.numbers} numbers"

    def save(self, directory: Path) -> None:
        """Writes the weights."""
        with atomic_file(directory / "linear.npz", "wb") as file:
            np.savez(file, allow_pickle=False, **self._arrays)


def _vectors(queries: Sequence[str]) -> sparse.csr_matrix:
    return sparse.csr_matrix(
        sparse.hstack([features.hashed_words(queries), features.counts(queries)])
    )


def fit(
    routes: Sequence[Route], queries: Sequence[str], outcomes: Outcomes, seed: int = 0
) -> LinearPredictor:
    """Fits the regressions; a share of right answers counts as so much of a right one."""
    from sklearn.linear_model import LogisticRegression, Ridge  # Imported late: it is slow.

    vectors, n = _vectors(queries), len(queries)
    weights, biases = (
        np.zeros((len(routes), features.WIDTH + features.COUNTS)),
        np.zeros(len(routes)),
    )
    for r in range(len(routes)):
        right = outcomes.correct[:, r]
        mean = right.mean()
        if 0 < mean < 1:
            model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, random_state=seed)
            labels = np.repeat([1, 0], n)
            model.fit(sparse.vstack([vectors, vectors]), labels, np.concatenate([right, 1 - right]))
            weights[r], biases[r] = model.coef_[0], model.intercept_[0]
        else:  # All right or all wrong: the rule of succession.
            biases[r] = special.logit((mean * n + 1) / (n + 2))
    ridge = Ridge(alpha=COST_PENALTY).fit(vectors, outcomes.cost)
    arrays = {
        "accuracy": weights,
        "accuracy_bias": biases,
        "cost": np.reshape(ridge.coef_, weights.shape),
        "cost_bias": np.broadcast_to(ridge.intercept_, (len(routes),)),
        "cost_range": np.stack([outcomes.cost.min(0), outcomes.cost.max(0)]),
    }
    return LinearPredictor(routes, arrays)


def load(directory: Path, routes: Sequence[Route]) -> LinearPredictor:
    """Reads what `LinearPredictor.save` wrote."""
    with np.load(directory / "linear.npz", allow_pickle=False) as found:
        return LinearPredictor(routes, dict(found))
