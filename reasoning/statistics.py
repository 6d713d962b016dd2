"""Means with 95 % confidence intervals, as every reported figure has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def mean_with_ci(values: Sequence[float], seeds: int = 1) -> dict[str, Any]:
    """Mean of independent values with Student's 95 % interval.

    Args:
      values: one for each independent unit: a problem (its mean over samples), or a training run.

    Returns:
      `{"mean", "ci95": [low, high], "n", "seeds"}`. The interval of a single value is unbounded,
      of equal values it is the value; for shares of ones, `share_with_ci` has the better interval.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise ValueError("no values to average: the evaluation had no problems")
    mean = float(values.mean())
    half = float("inf")
    if values.size > 1:
        error = values.std(ddof=1) / np.sqrt(values.size)
        half = float(stats.t.ppf(0.975, values.size - 1) * error)
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": values.size, "seeds": seeds}


def share_with_ci(hits: int, n: int, seeds: int = 1) -> dict[str, Any]:
    """Share of n independent trials with Wilson's 95 % score interval (JASA 22, 1927)."""
    if n < 1:
        raise ValueError("no trials to take a share of: the evaluation had no problems")
    z = stats.norm.ppf(0.975)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"mean": share, "ci95": [float(centre - half), float(centre + half)], "n": n, "seeds": seeds}


def combine_seeds(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One figure from those of independent training runs; the run is then the unit of chance."""
    if len(figures) == 1:
        return figures[0]
    combined = mean_with_ci([figure["mean"] for figure in figures], seeds=len(figures))
    return combined | {"n": sum(figure["n"] for figure in figures)}


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that k samples hold a correct one (arXiv:2107.03374, eq. 1)."""
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k} is not within 1..{num_samples}, the number of samples")
    if num_samples - num_correct < k:
        return 1.0
    misses = np.arange(num_samples - num_correct + 1, num_samples + 1)
    return float(1.0 - np.prod(1.0 - k / misses))
