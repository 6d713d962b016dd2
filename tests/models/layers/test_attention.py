"""Tests packed attention against its formula, with all scores at once and block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers import attention

B, T, N, K, H = 2, 11, 4, 2, 6


def inputs():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((B, T, n, H), np.float32) for n in (N, K, K))
    segments = np.array([[1] * 4 + [2] * 5 + [0] * 2, [1] * T], np.int32)
    return q, k, v, segments


def formula(q, k, v, segments, prefixes=None):
    """Softmax over what a position may see, one query at a time; padding gives zeros."""
    out = np.zeros(q.shape)
    prefixes = segments if prefixes is None else prefixes
    for b, t, n in np.ndindex(B, T, N):
        own = segments[b, t], prefixes[b, t]
        seen = [s for s in range(t + 1) if segments[b, s] in own]
        scores = k[b, seen, n // (N // K)].astype(float) @ q[b, t, n] / np.sqrt(H)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights / weights.sum() @ v[b, seen, n // (N // K)]
    return out


def in_blocks(monkeypatch, blocks):
    monkeypatch.setattr(attention, "MAX_SCORES", -(-B * N * T * T // blocks))


@pytest.mark.parametrize("blocks", [1, 2, 3, 11])
def test_attention_is_its_formula(monkeypatch, blocks):
    in_blocks(monkeypatch, blocks)
    q, k, v, segments = inputs()
    real = segments > 0
    out = np.asarray(attention.packed_attention(*map(jnp.asarray, (q, k, v, segments))))
    np.testing.assert_allclose(out[real], formula(q, k, v, segments)[real], atol=2e-6)


@pytest.mark.parametrize("blocks", [1, 3])
def test_segments_see_the_prefix_that_they_share(monkeypatch, blocks):
    in_blocks(monkeypatch, blocks)
    q, k, v, _ = inputs()
    segments = np.array([[1] * 3 + [2] * 4 + [3] * 2 + [0] * 2, [1, 2, 2, 3, 4, 4, 4, 5, 5, 5, 5]])
    prefixes = np.array([[1] * 3 + [1] * 4 + [1] * 2 + [0] * 2, [1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3]])
    arrays = map(jnp.asarray, (q, k, v, segments, prefixes))
    out, real = np.asarray(attention.packed_attention(*arrays)), segments > 0
    expected = formula(q, k, v, segments, prefixes)
    np.testing.assert_allclose(out[real], expected[real], atol=2e-6)
    assert not np.allclose(expected[real], formula(q, k, v, segments)[real], atol=1e-2)


def test_gradients_in_blocks_are_those_of_finite_differences(monkeypatch):
    in_blocks(monkeypatch, 3)
    q, k, v, segments = inputs()
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(q.shape) * (segments > 0)[..., None, None]

    def loss(q, k, v):
        return (attention.packed_attention(q, k, v, segments) * weights).sum()

    grads = jax.grad(loss, argnums=(0, 1, 2))(*map(jnp.asarray, (q, k, v)))
    for place, grad in enumerate(grads):
        direction = rng.standard_normal(grad.shape)
        step = 1e-5 * direction
        ends = []
        for sign in (1, -1):
            moved = [x.astype(float) for x in (q, k, v)]
            moved[place] = moved[place] + sign * step
            ends.append((formula(*moved, segments) * weights).sum())
        expected = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((np.asarray(grad) * direction).sum(), expected, rtol=1e-4)


def test_blocks_hold_fewer_scores(monkeypatch):
    """Temporary memory of forward and backward pass, as the compiler states it."""
    length = 512
    shapes = [jax.ShapeDtypeStruct((1, length, n, H), jnp.float32) for n in (N, K, K)]
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def memory(most):
        monkeypatch.setattr(attention, "MAX_SCORES", most)
        grad = jax.grad(lambda *xs: attention.packed_attention(*xs).sum(), argnums=(0, 1, 2))
        return jax.jit(grad).lower(*shapes, segments).compile().memory_analysis().temp_size_in_bytes

    whole, parts = memory(N * length**2), memory(N * length**2 // 16)
    assert whole > 4 * N * length**2 and parts < whole / 4


def test_the_platform_compiled_for_decides():
    """Lowered for a TPU on a machine without one, it is the library's attention."""
    args = [jnp.asarray(x) for x in inputs()]
    traced = jax.jit(attention.packed_attention).trace(*args)
    cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
    tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert f"{B * K}x{N // K * T}x{T}" in cpu and f"{B * K}x{N // K * T}x{T}" not in tpu
