"""Run by test_paths.py on eight virtual devices: a search on one device and on a mesh.

Prints a JSON object with the largest difference of bfloat16 log-probs from a fresh forward pass,
which on CPU need the XLA flags of an entry point, that the test's own process has not; and one with
the mesh's largest differences from the one device.
"""

import json

from launch.parts.runtime import prepare_backend

prepare_backend()

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.paths.path_sampler import PathSampler
from models.paths.path_scorer import PathScorer
from models.scalar_head import ScalarModel
from models.sharding import make_mesh, tree_shardings

CONFIG = ModelConfig(
    family="qwen3", vocab_size=48, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=48, qk_norm=True, tie_embeddings=True, max_length=64,
)  # fmt: skip
P, R, M, W, T = 8, 5, 3, 12, 4
PROMPTS = [[5 + i, 6, 7 + i][: 1 + i % 3] for i in range(P)]


def search(mesh, config=CONFIG):
    """Parents, places, tokens, log-probs and values of three forked steps, compilations, shard."""
    rng = np.random.default_rng(0)
    models = LanguageModel(config), ScalarModel(config)
    sampler = PathSampler(
        models[0], prompts=P, capacity=R, width=M, max_new_tokens=W, step_tokens=T,
        stop_ids=[], delimiter=None,
    )  # fmt: skip
    scorer = PathScorer(models[1], prompts=P, capacity=R, width=M, max_new_tokens=W, step_tokens=T)
    with jax.set_mesh(mesh):
        params, verifier = (
            jax.device_put(
                jax.jit(model.init)(jax.random.key(0)),
                tree_shardings(model.abstract_params, model.logical_axes, mesh),
            )
            for model in models
        )
        state, pool = sampler.start(params, PROMPTS), scorer.start(verifier, PROMPTS)
        params = sampler.prepare(params)
        parents, found = np.full((P, M), -1), []
        for number in range(3):
            into = np.stack([rng.permutation(R)[:M] for _ in range(P)])
            key = jax.random.key(number)
            state, steps = sampler.extend(params, state, parents, into, key)
            pool, values = scorer.extend(verifier, pool, parents, into, steps.tokens, steps.lengths)
            found.append((steps.tokens, steps.logprobs, values.last, parents, into))
            parents = np.take_along_axis(into, rng.integers(0, M, (P, M)), 1)
    suffix = state.pool.paths[0]
    prompts = suffix.sharding.shard_shape(suffix.shape)[1]
    return found, max(sampler.compilations, scorer.compilations), prompts


def bfloat16_error(mesh):
    """The largest difference of a path's log-probs from those of a fresh forward pass."""
    config = CONFIG.replace(dtype="bfloat16")
    model, largest = LanguageModel(config), 0.0
    params = model.init(jax.random.key(0))

    @jax.jit
    def log_softmax(tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
        return jax.nn.log_softmax(model.logits(params, hidden))[0]

    held = {(p, -1): list(prompt) for p, prompt in enumerate(PROMPTS)}
    for tokens, logprobs, _, parents, into in search(mesh, config)[0]:
        before = dict(held)
        for p, i in np.ndindex(P, M):
            ids = held[p, into[p, i]] = before[p, parents[p, i]] + tokens[p, i].tolist()
            fresh = log_softmax(jnp.array([ids + [1] * (16 - len(ids))]))
            fresh = np.asarray(fresh)[len(ids) - 1 - T : len(ids) - 1][np.arange(T), ids[-T:]]
            largest = max(largest, float(np.abs(fresh - logprobs[p, i]).max()))
    return largest


def main():
    assert jax.device_count() == 8
    alone = make_mesh(devices=jax.devices()[:1])
    print(json.dumps({"bfloat16": bfloat16_error(alone)}), flush=True)
    expected, _, _ = search(alone)
    found, compilations, prompts = search(make_mesh({"data": 4, "tensor": 2}))
    pairs = list(zip(expected, found))
    report = {
        "prompts": prompts,
        "tokens": all(np.array_equal(one[0], other[0]) for one, other in pairs),
        "logprobs": max(float(np.abs(one[1] - other[1]).max()) for one, other in pairs),
        "values": max(float(np.abs(one[2] - other[2]).max()) for one, other in pairs),
        "compilations": compilations,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
