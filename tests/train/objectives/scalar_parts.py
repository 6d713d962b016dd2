"""A tiny scalar model, sequences for it, and what its values are when each is read alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.scalar_head import ScalarModel
from models.sharding import make_mesh
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

CONFIG = ModelConfig(
    family="qwen3", vocab_size=264, embed_dim=8, num_layers=2, num_heads=2, num_kv_heads=1,
    head_dim=4, mlp_dim=16, qk_norm=True, tie_embeddings=True,
)  # fmt: skip
LENGTH = 32


@functools.cache
def scalar_params(bias=True):
    rng, model = np.random.default_rng(0), ScalarModel(CONFIG, bias)
    return jax.tree.map(
        lambda x: rng.normal(0, 0.7, x.shape).astype(np.float32), model.abstract_params
    )


@functools.cache
def _reader(bias):
    model = ScalarModel(CONFIG, bias)

    def read(params, tokens):
        valid = jnp.arange(LENGTH)[None] < jnp.count_nonzero(tokens >= 0)
        hidden = model.hidden(
            params, jnp.maximum(tokens, 0)[None], jnp.arange(LENGTH)[None],
            valid.astype(jnp.int32),
        )  # fmt: skip
        return hidden[0]

    return jax.jit(read)


def alone(tokens, bias=True):
    """Float64 hidden states `[length, D]` and values `[length]` of one unpacked sequence."""
    padded = np.full(LENGTH, -1)
    padded[: len(tokens)] = tokens
    hidden = np.float64(_reader(bias)(scalar_params(bias), padded))[: len(tokens)]
    score = scalar_params(bias)["score"]
    values = hidden @ np.float64(score["kernel"])[:, 0]
    return hidden, values + (np.float64(score["bias"])[0] if bias else 0.0)


def sgd_update(make_loss, batch, *, bias=True, accumulate=1, finalize=lambda metrics: metrics):
    """Metrics of one step, and the gradient of the head, which SGD at rate 1 shows."""
    model, mesh = ScalarModel(CONFIG, bias), make_mesh({"data": -1})
    optimizer = make_optimizer(
        {"name": "sgd", "learning_rate": 1.0, "clip_norm": None}, model.abstract_params, 10
    )
    step = make_train_step(
        make_loss(model), optimizer, mesh, accumulate=accumulate, finalize=finalize
    )
    params = jax.tree.map(jnp.array, scalar_params(bias))
    state, metrics = step(state_from_params(model, params, optimizer, mesh), step.put(batch))
    before, after = scalar_params(bias)["score"], state.params["score"]
    return metrics, {name: np.array(before[name] - after[name]) for name in before}
