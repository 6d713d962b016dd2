"""Run by test_splash.py on four virtual devices: the kernel, where devices share rows and heads.

Compares values and gradients with those of the plain product on one device, for rows that do and do
not divide into blocks.
"""

import jax
import numpy as np

from models.layers.attention import product_attention
from models.layers.splash import splash_attention
from models.sharding import make_mesh
from tests.models.layers.test_splash import gradients, inputs


def main():
    assert jax.device_count() == 4
    for sizes, shape in (
        ({"context": 4}, (512, 2, 1, 64, 64)),
        ({"context": 2, "tensor": 2}, (200, 4, 2, 64, 64)),
        ({"context": 2, "data": 2}, (131, 2, 2, 48, 32)),
        # The row does not divide over the devices, but its blocks do.
        ({"context": 4}, (130, 2, 1, 64, 64)),
    ):
        *arrays, segments, rng = inputs(*shape)
        weights = rng.normal(size=(*arrays[0].shape[:3], shape[-1]))
        expected = gradients(product_attention, *arrays, segments, weights)
        with jax.set_mesh(make_mesh(sizes)):
            attend = lambda *xs: splash_attention(*xs, interpret=True)  # noqa: E731
            found = jax.jit(lambda *xs: gradients(attend, *xs))(*arrays, segments, weights)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5, err_msg=str(sizes))


if __name__ == "__main__":
    main()
