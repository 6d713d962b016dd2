"""Tests the TPU attention kernel against the plain product, and the program made for a TPU.

The kernel runs interpreted here: its arithmetic is tested, its speed is not.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.attention import product_attention
from models.layers.splash import block_size, splash_attention

ROOT = Path(__file__).parents[3]
# Length, heads, key heads, their dimension, dimension of values.
SHAPES = {
    "grouped": (200, 4, 2, 64, 64),
    "one key head, two blocks": (256, 2, 1, 128, 128),
    "latent": (130, 2, 2, 48, 32),
}


def inputs(length, heads, kv_heads, key_dim, value_dim):
    rng = np.random.default_rng(length)
    sizes = ((heads, key_dim), (kv_heads, key_dim), (kv_heads, value_dim))
    q, k, v = (jnp.asarray(rng.normal(size=(2, length, *size)), jnp.float32) for size in sizes)
    # Segments that end within a block of 128, and padding at the end of the second row.
    ends = np.array([[37, 101, length], [64, 129, length]])
    segments = 1 + (np.arange(length) >= ends[..., None]).sum(1)
    segments[1, 129:] = 0
    return q, k, v, jnp.asarray(segments, jnp.int32), rng


def gradients(attention, q, k, v, segments, weights):
    """The output at real tokens, and the gradients of its weighted sum."""
    real = (segments > 0)[..., None, None]

    def loss(q, k, v):
        out = attention(q, k, v, segments)
        return (out * jnp.where(real, weights, 0)).sum(), jnp.where(real, out, 0)

    (_, out), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
    return out, *grads


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_the_product(shape):
    q, k, v, segments, rng = inputs(*shape)
    weights = rng.normal(size=(*q.shape[:3], v.shape[-1]))
    kernel = gradients(
        lambda *xs: splash_attention(*xs, interpret=True), q, k, v, segments, weights
    )
    expected = gradients(product_attention, q, k, v, segments, weights)
    for ours, theirs in zip(kernel, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_devices_that_share_rows_and_heads_compute_the_same():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("splash_on_devices.py")],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_blocks_add_little_padding():
    assert block_size(34_816) == 1024 and block_size(300) == 128
    for length in (100, 513, 1025, 2050, 5000, 33_000):
        assert -length % block_size(length) <= max(length // 8, 127)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed (pip install libtpu)",
)
def test_a_program_for_a_tpu_holds_the_kernel_and_no_square_of_scores():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_for_tpu.py")],
        cwd=ROOT,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
