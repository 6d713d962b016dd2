"""Intervals by simulation and against written-out values; pass@k against enumeration."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from reasoning.statistics import (
    combine_seeds,
    mean_with_ci,
    pass_at_k,
    share_with_ci,
    shares_with_ci,
)

DATA_SETS = 2000


def covered(figures, truth):
    """Share of the intervals that hold the true value."""
    return np.mean([low <= truth <= high for low, high in (f["ci95"] for f in figures)])


@pytest.mark.parametrize("n", [2, 3, 12])
def test_students_interval_covers_the_mean_95_times_in_100(n):
    values = np.random.default_rng(0).normal(3.0, 2.0, (DATA_SETS, n))
    assert covered(map(mean_with_ci, values), 3.0) == pytest.approx(0.95, abs=0.02)


def test_wilsons_interval_covers_the_share_95_times_in_100():
    rng, inside = np.random.default_rng(0), []
    # At one share the coverage of a count oscillates with n; over many shares it does not.
    for truth in rng.uniform(0.02, 0.98, DATA_SETS):
        inside.append(covered([share_with_ci(int(rng.binomial(30, truth)), 30)], truth))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    "n, samples, a, b",
    [
        (48, 2, 9.0, 0.3),  # nearly all problems are always solved
        (200, 2, 0.2, 2.0),  # nearly none ever
        (48, 4, 1.0, 1.0),
    ],
)
def test_intervals_of_pass_rates_cover_when_problems_differ(n, samples, a, b):
    """Problems of Beta(a, b) difficulty, several samples of each: the problem is the unit."""
    rng = np.random.default_rng(0)
    rates = rng.binomial(samples, rng.beta(a, b, (DATA_SETS, n))) / samples
    coverage = covered(map(shares_with_ci, rates), a / (a + b))
    assert coverage == pytest.approx(0.95, abs=0.02)


def test_wilson_written_out():
    # Three of ten; Wilson's interval is the solution of |share - p| = z sqrt(p (1 - p) / n).
    figure = share_with_ci(3, 10, seeds=2)
    assert figure["ci95"] == pytest.approx([0.10779, 0.60322], abs=1e-5)
    assert (figure["mean"], figure["n"], figure["seeds"]) == (0.3, 10, 2)
    for bound in figure["ci95"]:
        assert abs(0.3 - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / 10))


@pytest.mark.parametrize("hits", [0, 1, 17, 48])
def test_shares_of_zeros_and_ones_have_wilsons_interval(hits):
    ones = np.arange(48) < hits
    assert shares_with_ci(ones)["ci95"] == pytest.approx(share_with_ci(hits, 48)["ci95"])
    low, high = shares_with_ci(ones)["ci95"]
    assert 0 <= low <= hits / 48 <= high <= 1 and high - low > 0.07


def test_student_written_out():
    figure = mean_with_ci([1.0, 2.0, 6.0])
    # 3 -+ 4.3027 * sqrt(7) / sqrt(3)
    assert figure["mean"] == 3.0 and figure["n"] == 3 and figure["seeds"] == 1
    assert figure["ci95"] == pytest.approx([3 - 6.5724, 3 + 6.5724], abs=1e-3)
    assert mean_with_ci([5.0])["ci95"] == [-math.inf, math.inf]
    assert mean_with_ci([2.0, 2.0])["ci95"] == [2.0, 2.0]


def test_seeds_are_the_unit_of_chance():
    """Runs differ more than their problems tell, so pooling problems would be too sure."""
    rng = np.random.default_rng(1)
    combined = []
    for _ in range(DATA_SETS):
        runs = 0.5 + rng.normal(0, 0.1, 3)
        combined.append(combine_seeds([mean_with_ci(r + rng.normal(0, 0.2, 50)) for r in runs]))
    assert covered(combined, 0.5) == pytest.approx(0.95, abs=0.02)
    assert combined[0]["n"] == 150 and combined[0]["seeds"] == 3
    alone = share_with_ci(3, 10)
    assert combine_seeds([alone]) == alone
    json.dumps(combined[0])


def test_pass_at_k_is_the_share_of_draws_that_hold_a_correct_one():
    for n, correct in itertools.product(range(1, 7), range(7)):
        for k in range(1, n + 1) if correct <= n else ():
            draws = list(itertools.combinations(range(n), k))
            hits = sum(any(sample < correct for sample in draw) for draw in draws)
            assert pass_at_k(n, correct, k) == pytest.approx(hits / len(draws), abs=1e-12)


def test_pass_at_k_is_exact_for_many_samples():
    expected = 1 - math.comb(990, 100) / math.comb(1000, 100)
    assert pass_at_k(1000, 10, 100) == pytest.approx(expected, rel=1e-9)
    assert pass_at_k(1000, 10, 1) == pytest.approx(0.01)
    assert stats.hypergeom(1000, 10, 100).sf(0) == pytest.approx(expected)


@pytest.mark.parametrize(
    "call, fault",
    [
        (lambda: mean_with_ci([]), "no values to average"),
        (lambda: shares_with_ci([]), "no shares to average"),
        (lambda: share_with_ci(0, 0), "no trials"),
        (lambda: pass_at_k(4, 2, 5), r"k=5 is not within 1\.\.4"),
        (lambda: pass_at_k(4, 2, 0), r"k=0 is not within 1\.\.4"),
    ],
)
def test_nothing_to_count_is_an_error(call, fault):
    with pytest.raises(ValueError, match=fault):
        call()
