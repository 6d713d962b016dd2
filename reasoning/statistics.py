"""Means and shares with 95 % confidence intervals, in the form that all reports use."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

# The 97.5 % quantile of the normal distribution.
Z = float(special.ndtri(0.975))


def mean_with_ci(values: ArrayLike, seeds: int = 1) -> dict[str, Any]:
    """Returns the mean of independent values with Student's 95 % interval.

    Shares of right answers have a better interval in `shares_with_ci`.

    Args:
      values: `[n]`, one for each independent unit: a problem (its mean over samples), or a training
        run.
      seeds: number of training runs, for the report.

    Returns:
      `{"mean", "ci95": [low, high], "n", "seeds"}`. The interval of a single value is unbounded;
      that of equal values has length 0.

    Raises:
      ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise ValueError("no values to average: the evaluation had no problems; give at least one")
    mean = float(values.mean())
    half = float("inf")
    if values.size > 1:
        error = values.std(ddof=1) / np.sqrt(values.size)
        half = float(special.stdtrit(values.size - 1, 0.975) * error)
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": values.size, "seeds": seeds}


def share_with_ci(hits: float, n: int, seeds: int = 1) -> dict[str, Any]:
    """Returns the share `hits / n` with Wilson's 95 % score interval (JASA 22, 1927).

    Args:
      hits: trials that succeeded; of a mixture of outcomes, their expected number.
      n: independent trials.
      seeds: number of training runs, for the report.

    Returns:
      `{"mean", "ci95": [low, high], "n", "seeds"}`.

    Raises:
      ValueError: there are no trials.
    """
    if n < 1:
        raise ValueError(
            "no trials to take a share of: the evaluation had no problems; give at least one"
        )
    return {"mean": hits / n, "ci95": _wilson(hits / n, n), "n": n, "seeds": seeds}


def shares_with_ci(values: ArrayLike, seeds: int = 1) -> dict[str, Any]:
    """Returns the mean of independent shares, such as each problem's pass rate over its samples.

    The interval is Wilson's for the number of trials that would give this mean the same variance
    (Kish's effective sample size); for zeros and ones, that is the number of values. It stays
    within [0, 1] and keeps its coverage near the ends, unlike Student's interval, which has length
    0 for 48 right answers out of 48.

    Args:
      values: `[n]`, one in [0, 1] for each independent unit.
      seeds: number of training runs, for the report.

    Returns:
      `{"mean", "ci95": [low, high], "n", "seeds"}`.

    Raises:
      ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise ValueError("no shares to average: the evaluation had no problems; give at least one")
    n, mean, variance = values.size, float(values.mean()), float(values.var() / values.size)
    trials = mean * (1 - mean) / variance if variance else n
    return {"mean": mean, "ci95": _wilson(mean, trials), "n": n, "seeds": seeds}


def _wilson(share: float, trials: float) -> list[float]:
    """Returns Wilson's 95 % score interval of a share among `trials` trials."""
    centre = (share + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z * np.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    half /= 1 + Z * Z / trials
    # Rounding must not move the interval out of [0, 1] or past the share itself.
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return [float(min(low, share)), float(max(high, share))]


def combine_seeds(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combines one figure of several independent training runs; the interval is over the runs.

    Args:
      figures: the figure of each run, as the functions above return it. A single one is returned
        unchanged.
    """
    if len(figures) == 1:
        return figures[0]
    combined = mean_with_ci([figure["mean"] for figure in figures], seeds=len(figures))
    return combined | {"n": sum(figure["n"] for figure in figures)}


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Returns the unbiased estimate of pass@k (arXiv:2107.03374, eq. 1).

    pass@k is the probability that at least one of k samples is correct.

    Raises:
      ValueError: k is not within 1..`num_samples`.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"k={k} is not within 1..{num_samples}, the number of samples: change k or draw more"
        )
    if num_samples - num_correct < k:
        return 1.0
    misses = np.arange(num_samples - num_correct + 1, num_samples + 1)
    return float(1.0 - np.prod(1.0 - k / misses))
