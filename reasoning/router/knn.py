"""The `knn` kind: the mean outcome of the most similar queries; the baseline that others must beat.

Few published routers beat it. Similarity is the cosine of hashed words and counts.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from models.files import atomic_file
from reasoning.router import features
from reasoning.router.calibration import Outcomes
from reasoning.router.predictor import Predictions
from reasoning.router.route import Route

# Weight of the counts beside the words, and of the overall mean beside the neighbours.
COUNTS_WEIGHT, PRIOR = 0.5, 2.0


class KnnPredictor:
    """Predicts from the k most similar queries that were fitted on.

    Args:
      routes: the routes.
      known: `[n, F]`, vectors of the known queries.
      outcomes: what every route did on them.
      neighbours: k; None for the square root of n, at least 5.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        known: sparse.csr_matrix,
        outcomes: Outcomes,
        neighbours: int | None = None,
    ):
        self.routes, self._known, self._outcomes = tuple(routes), known, outcomes
        self._size = len(outcomes.correct)
        count = max(5, int(round(self._size**0.5))) if neighbours is None else neighbours
        self.neighbours = min(count, self._size)

    def predict(self, queries: Sequence[str]) -> Predictions:
        """Predicts accuracy and cost of every route; see `Predictor`."""
        similar = np.asarray((_vectors(queries) @ self._known.T).todense())
        # A stable sort: equal similarities always give the same neighbours.
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, : self.neighbours]
        found = [
            (values[nearest].sum(1) + PRIOR * values.mean(0)) / (self.neighbours + PRIOR)
            for values in (self._outcomes.correct, self._outcomes.cost)
        ]
        return Predictions(*found)

    def explain(self, query: str) -> str:
        """Says how many queries the prediction rests on."""
        del query
        return f"the {self.neighbours} most similar of {self._size} known queries"

    def save(self, directory: Path) -> None:
        """Writes the vectors and outcomes of the known queries."""
        with atomic_file(directory / "knn.npz", "wb") as file:
            np.savez(
                file, data=self._known.data, indices=self._known.indices,
                indptr=self._known.indptr, width=features.WIDTH + features.COUNTS,
                correct=self._outcomes.correct, cost=self._outcomes.cost,
                neighbours=self.neighbours,
            )  # fmt: skip


def _vectors(queries: Sequence[str]) -> sparse.csr_matrix:
    counts = features.counts(queries) * COUNTS_WEIGHT / 3
    joined = sparse.csr_matrix(sparse.hstack([features.hashed_words(queries), counts]))
    lengths = np.sqrt(np.asarray(joined.multiply(joined).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, 1e-12)) @ joined)


def fit(
    routes: Sequence[Route], queries: Sequence[str], outcomes: Outcomes, seed: int = 0
) -> KnnPredictor:
    """Keeps the queries and their outcomes; `seed` is not used."""
    del seed
    return KnnPredictor(routes, _vectors(queries), outcomes)


def load(directory: Path, routes: Sequence[Route]) -> KnnPredictor:
    """Reads what `KnnPredictor.save` wrote."""
    with np.load(directory / "knn.npz", allow_pickle=False) as found:
        known = sparse.csr_matrix(
            (found["data"], found["indices"], found["indptr"]),
            shape=(len(found["correct"]), int(found["width"])),
        )
        outcomes = Outcomes(found["correct"], found["cost"])
        return KnnPredictor(routes, known, outcomes, int(found["neighbours"]))
