"""Tests token log-probs against a float64 NumPy softmax, and the memory that they need."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.logprobs import token_logprobs

CONFIG = ModelConfig(
    family="qwen2", vocab_size=40, embed_dim=8, num_layers=1, num_heads=2, num_kv_heads=1,
    head_dim=4, mlp_dim=16, tie_embeddings=True,
)  # fmt: skip
B, T, V = 2, 7, 40


@functools.cache
def setup():
    model, rng = LanguageModel(CONFIG), np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.35, x.shape).astype(np.float32), model.abstract_params
    )
    hidden = rng.normal(0, 3, (B, T, 8)).astype(np.float32)
    return model, params, hidden, rng.integers(0, V, (B, T))


def oracle(temperature):
    """log softmax(h @ E.T / temperature) in float64, shifted to the predicted token."""
    _, params, hidden, tokens = setup()
    logits = np.asarray(hidden, np.float64) @ np.asarray(params["embedding"], np.float64).T
    logits /= temperature
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    logprobs, entropy = np.zeros((B, T)), np.zeros((B, T))
    for b in range(B):
        for t in range(1, T):
            logprobs[b, t] = log_softmax[b, t - 1, tokens[b, t]]
            entropy[b, t] = -(np.exp(log_softmax[b, t - 1]) * log_softmax[b, t - 1]).sum()
    return logprobs, entropy


@pytest.mark.parametrize("chunk", [None, 1, 3, T, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_equals_numpy_for_every_chunk(chunk, temperature):
    model, *arrays = setup()
    compute = functools.partial(
        token_logprobs, model, temperature=temperature, chunk=chunk, with_entropy=True
    )
    logprobs, entropy = jax.jit(compute)(*arrays)
    assert logprobs.dtype == entropy.dtype == jnp.float32
    np.testing.assert_allclose(logprobs, oracle(temperature)[0], atol=1e-5)
    np.testing.assert_allclose(entropy, oracle(temperature)[1], atol=1e-5)


def test_temperature_may_be_traced():
    traced = jax.jit(lambda t: token_logprobs(*setup(), temperature=t))(0.5)
    np.testing.assert_allclose(traced, oracle(0.5)[0], atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
def test_gradients_equal_finite_differences(chunk):
    model, params, hidden, tokens = setup()
    weights = np.random.default_rng(1).normal(size=(2, B, T))

    @jax.jit
    def loss(embedding, hidden):
        parts = token_logprobs(
            model, params | {"embedding": embedding}, hidden, tokens, chunk=chunk, with_entropy=True
        )
        return jnp.sum(weights[0] * parts[0] + weights[1] * parts[1])

    with jax.enable_x64():
        arguments = (params["embedding"], hidden)
        check_grads(loss, arguments, order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_chunked_gradient_never_holds_all_logits():
    model, params, hidden, tokens = setup()

    def shapes(chunk):
        def loss(params, hidden):
            return token_logprobs(model, params, hidden, tokens, chunk=chunk).sum()

        text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, hidden))
        return {tuple(map(int, s.split(","))) for s in re.findall(r"f32\[([\d,]+)\]", text)}

    def largest_with_vocab(chunk):
        embedding = (8, V)
        return max(np.prod(s) for s in shapes(chunk) if s[-1] == V and s != embedding)

    assert largest_with_vocab(None) == B * T * V
    assert largest_with_vocab(1) == B * V


@pytest.mark.parametrize(
    "platform, bound", [("cpu", "MAX_LOGITS_CPU"), ("tpu", "MAX_LOGITS"), ("gpu", "MAX_LOGITS")]
)
def test_chunk_is_chosen_by_size_and_platform(monkeypatch, platform, bound):
    model, params, hidden, tokens = setup()
    held = []

    class Watched:
        @staticmethod
        def logits(params, hidden):
            logits = model.logits(params, hidden)
            held.append(logits.size)
            return logits

    monkeypatch.setattr("models.logprobs.mesh_platform", lambda: platform)
    monkeypatch.setattr(f"models.logprobs.{bound}", B * 2 * V)
    logprobs = jax.jit(functools.partial(token_logprobs, Watched))(params, hidden, tokens)
    assert max(held) == B * 2 * V
    np.testing.assert_allclose(logprobs, oracle(1.0)[0], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [({"temperature": 0.0}, "temperature=0.0 has no log-probs"), ({"chunk": 0}, "chunk=0 is no")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_logprobs(*setup(), **arguments)
