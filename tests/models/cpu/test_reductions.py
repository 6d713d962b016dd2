"""Tests sums and maxima along rows, computed with and without the lanes that a CPU uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.cpu.reductions import LANES, row_max, row_sum


@pytest.mark.parametrize("shape", [(3, 1), (2, 3, 31), (5, LANES), (2, 3, 96), (4, 97), (2, 2048)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_reduced_whole(shape, dtype):
    x = jax.random.normal(jax.random.key(0), shape).astype(dtype)
    exact = np.asarray(x, np.float64)
    tolerance = 1e-5 if dtype == "float32" else 0.01 * shape[-1] ** 0.5
    np.testing.assert_array_equal(np.asarray(row_max(x), np.float64), exact.max(-1))
    np.testing.assert_allclose(
        np.asarray(row_sum(x), np.float64), exact.sum(-1), rtol=tolerance, atol=tolerance
    )
    assert row_sum(x).dtype == row_max(x).dtype == x.dtype


def test_gradients_are_those_of_a_sum():
    x = jax.random.normal(jax.random.key(1), (3, 4 * LANES))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(row_sum(x * x) ** 2)))(x)
    expected = 4 * np.asarray(x) * np.square(np.asarray(x)).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_what_is_not_finite_is_kept():
    x = jnp.array([[jnp.inf] + [0.0] * 63, [jnp.nan] + [0.0] * 63, [-jnp.inf] * 64])
    np.testing.assert_array_equal(row_max(x), [np.inf, np.nan, -np.inf])
    np.testing.assert_array_equal(row_sum(x), [np.inf, np.nan, -np.inf])
