"""The sampler at a real model's width, and the fault of XLA's thread pool that it ran into.

What is right in a toy need not be at 576 dimensions, a vocabulary of 16,384 and a loop over layers
inside the loop over tokens: there XLA shares each product among its threads.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck

PROMPT, GROUP, NEW = 40, 8, 16
ROOT = Path(__file__).parents[2]


def test_every_call_of_the_sampler_agrees_with_the_trainer():
    model = LanguageModel(
        ModelConfig(
            family="llama", vocab_size=16_384, embed_dim=576, num_layers=8, num_heads=9,
            num_kv_heads=3, head_dim=64, mlp_dim=1536, tie_embeddings=True, max_length=64,
            dtype="float32",
        )
    )  # fmt: skip
    params = jax.jit(model.init)(jax.random.key(0))
    # Sharper than at initialisation, so that an error in one layer shows in the log-probs.
    params = jax.tree.map(lambda x: 6 * x if x.ndim > 2 else x, params)
    prompts = [[(37 * i + 11 * j) % 4000 + 3 for j in range(PROMPT)] for i in range(8)]
    sampler = Sampler(model, slots=8, group=GROUP, max_new_tokens=NEW, stop_ids=[2])
    check, found = SamplerCheck(model), []
    for _ in range(3):
        out = sampler(params, prompts, jax.random.key(1), SamplingParams(temperature=1.0))
        found.append(out)
        for i in (0, 4):
            drawn = [
                Sampled(prompt, out.ids(n, i), out.logprobs[n, i, : out.lengths[n, i]])
                for n, prompt in enumerate(prompts[i : i + 4], i)
            ]
            kl, gap = check(params, drawn, temperature=1.0)
            assert gap < 1e-3 and kl < 1e-6
    for other in found[1:]:
        np.testing.assert_array_equal(other.tokens, found[0].tokens)
        np.testing.assert_array_equal(other.logprobs, found[0].logprobs)


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
    environment = {name: x for name, x in os.environ.items() if name != "NPROC"}
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS], cwd=ROOT, env=environment | {"XLA_FLAGS": flags},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 1e-3
