"""Means with 95 % confidence intervals, as every reported figure has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

# 97.5 % quantile of the normal distribution.
Z = float(special.ndtri(0.975))


def mean_with_ci(values: Sequence[float], seeds: int = 1) -> dict[str, Any]:
    """Mean of independent values with Student's 95 % interval.

    Args:
      values: one for each independent unit: a problem (its mean over samples), or a training run.

    Returns:
      `{"mean", "ci95": [low, high], "n", "seeds"}`. The interval of a single value is unbounded,
      of equal values it is the value; for shares, `shares_with_ci` has the better interval.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise ValueError("no values to average: the evaluation had no problems")
    mean = float(values.mean())
    half = float("inf")
    if values.size > 1:
        error = values.std(ddof=1) / np.sqrt(values.size)
        half = float(special.stdtrit(values.size - 1, 0.975) * error)
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": values.size, "seeds": seeds}


def share_with_ci(hits: int, n: int, seeds: int = 1) -> dict[str, Any]:
    """Share of n independent trials with Wilson's 95 % score interval (JASA 22, 1927)."""
    if n < 1:
        raise ValueError("no trials to take a share of: the evaluation had no problems")
    return {"mean": hits / n, "ci95": _wilson(hits / n, n), "n": n, "seeds": seeds}


def shares_with_ci(values: Sequence[float], seeds: int = 1) -> dict[str, Any]:
    """Mean of independent shares, such as each problem's pass rate over its samples.

    The interval is Wilson's for as many trials as would have the variance of this mean (Kish's
    effective sample size); for zeros and ones that is their number. It stays within 0..1 and keeps
    its coverage near the ends, where Student's does not: 48 right answers of 48 are no certainty.

    Args:
      values: one in 0..1 for each independent unit.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise ValueError("no shares to average: the evaluation had no problems")
    n, mean, variance = values.size, float(values.mean()), float(values.var() / values.size)
    trials = mean * (1 - mean) / variance if variance else n
    return {"mean": mean, "ci95": _wilson(mean, trials), "n": n, "seeds": seeds}


def _wilson(share: float, trials: float) -> list[float]:
    centre = (share + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z * np.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    half /= 1 + Z * Z / trials
    # Rounding must lead neither out of 0..1 nor past the share itself.
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return [float(min(low, share)), float(max(high, share))]


def combine_seeds(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One figure from those of independent training runs; the run is then the unit of chance."""
    if len(figures) == 1:
        return figures[0]
    combined = mean_with_ci([figure["mean"] for figure in figures], seeds=len(figures))
    return combined | {"n": sum(figure["n"] for figure in figures)}


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of P(one of k samples is correct) (arXiv:2107.03374, eq. 1)."""
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k} is not within 1..{num_samples}, the number of samples")
    if num_samples - num_correct < k:
        return 1.0
    misses = np.arange(num_samples - num_correct + 1, num_samples + 1)
    return float(1.0 - np.prod(1.0 - k / misses))
