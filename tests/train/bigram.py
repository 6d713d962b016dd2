"""A model small enough to compile in no time, and runs of it: bigram logits from two matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from models.sharding import make_mesh
from train.objectives import sft
from train.optimizer import make_optimizer
from train.source import PackedSource
from train.state import abstract_state, create_state
from train.step import make_train_step

V, D = 12, 6


class Bigram:
    """logits(token) = embedding[token] @ head + bias; the interface of `LanguageModel`."""

    abstract_params = {
        "embedding": jax.ShapeDtypeStruct((V, D), jnp.float32),
        "head": {
            "kernel": jax.ShapeDtypeStruct((D, V), jnp.float32),
            "bias": jax.ShapeDtypeStruct((V,), jnp.float32),
        },
    }
    logical_axes = {
        "embedding": ("vocab", "embed"),
        "head": {"kernel": ("embed", "vocab"), "bias": ("vocab",)},
    }

    def init(self, key):
        del key
        # Cheap to compile.
        waves = jnp.sin(jnp.arange(2.0 * V * D) ** 2)
        return {
            "embedding": waves[: V * D].reshape(V, D),
            "head": {"kernel": waves[V * D :].reshape(D, V), "bias": jnp.zeros(V)},
        }

    def hidden(self, params, tokens, positions, segment_ids):
        return params["embedding"][tokens]

    def logits(self, params, hidden):
        return hidden @ params["head"]["kernel"] + params["head"]["bias"]


def examples(count=40, seed=0, longest=10):
    """Random sequences of 2 to `longest` tokens, trained on from the second half on."""
    rng = np.random.default_rng(seed)
    result = []
    for length in rng.integers(2, longest + 1, count):
        weights = (np.arange(length) >= length // 2).astype(np.float32)
        result.append({"tokens": rng.integers(0, V, length), "loss_weights": weights})
    return result


def parts(num_steps=20, loss_fn=None, optimizer=(("learning_rate", 0.05),), **step_arguments):
    """A fresh state, a step that is compiled once for the same arguments, and a fresh source."""
    step, abstract, initial = _built(num_steps, loss_fn, optimizer, *step_arguments.items())
    state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), initial, abstract)
    return state, step, PackedSource(examples(), rows=4, row_length=16, seed=0)


@functools.cache
def _built(num_steps, loss_fn, optimizer, *step_arguments):
    model, mesh = Bigram(), make_mesh({"data": -1})
    optimizer = make_optimizer(dict(optimizer), model.abstract_params, num_steps)
    loss_fn = loss_fn or sft.make_loss(model)
    step = make_train_step(loss_fn, optimizer, mesh, **dict(step_arguments))
    state = create_state(model, optimizer, mesh, jax.random.key(0))
    return step, abstract_state(model, optimizer, mesh), jax.tree.map(np.array, state)
