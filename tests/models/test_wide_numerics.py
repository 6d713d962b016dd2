"""The sampler at a real model's width, and the fault of XLA's thread pool that it ran into.

What is right in a toy need not be at 576 dimensions, a vocabulary of 16,384 and a loop over layers
inside the loop over tokens: there XLA shares each product among its threads. Both tests start a
process whose machine code is optimised, as that of a run is.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments, **environment):
    """Returns what a Python process prints."""
    kept = {name: x for name, x in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=kept | environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_call_of_the_sampler_agrees_with_the_trainer():
    assert run("-m", "tests.models.wide_sampler").split()[-1] == "equal"


PRODUCTS = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from launch.parts.runtime import prepare_backend
prepare_backend()
D, V, L, T = 576, 16384, 40, 20
keys = jax.random.split(jax.random.key(0), 4)
head = jax.random.normal(keys[0], (D, V)) / 24
up = jax.random.normal(keys[1], (L, D, 1536)) / 24
down = jax.random.normal(keys[2], (L, 1536, D)) / 40

def loop(head, up, down, x):
    def layer(x, weights):
        x = x / jnp.sqrt((x * x).mean(-1, keepdims=True))
        return x + jnp.tanh(x @ weights[0]) @ weights[1], None

    def step(carry):
        i, x, products, inputs = carry
        x, _ = jax.lax.scan(layer, x, (up, down))
        out = x @ head
        return i + 1, out[:, :D], products.at[i].set(out[:, :336]), inputs.at[i].set(x)

    empty = jnp.zeros((T, len(x), 336)), jnp.zeros((T, len(x), D))
    return jax.lax.while_loop(lambda c: c[0] < T, step, (0, x, *empty))[2:]

mesh = Mesh(np.array(jax.devices()), ("data",))
x = jax.random.normal(keys[3], (64, D))
run = jax.jit(jax.shard_map(loop, mesh=mesh, in_specs=(P(), P(), P(), P("data")),
                            out_specs=P(None, "data"), check_vma=False))
products, inputs = map(np.asarray, run(head, up, down, x))
print(np.abs(products - inputs @ np.asarray(head)[:, :336]).max())
"""


@pytest.mark.parametrize("devices", [1, 2])
def test_products_stay_right_after_a_thousand_of_them(devices):
    """On two cores with two virtual devices, XLA's own number of threads gives an error of 4."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    assert float(run("-c", PRODUCTS, XLA_FLAGS=flags)) < 1e-3
