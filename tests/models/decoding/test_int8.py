"""Sampling with int8 kernels or an int8 cache: what is stored and computed, and what guards it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import Experts
from models.decoder import LanguageModel
from models.decoding.self_check import Sampled, SamplerCheck, SamplerMismatch, divergence
from models.decoding.weights import decoding_model, quantized, reshard
from models.logprobs import token_logprobs
from reasoning.generation.jax_generator import JaxGenerator
from tests.rl.tiny_policy import MODEL, TOKENIZER
from tests.rl.tiny_policy import params as tiny_params


def by_hand(kernel, inputs):
    """Each output's weights rounded to multiples of its largest over 127, in NumPy."""
    largest = np.abs(kernel).max(inputs, keepdims=True)
    step = np.where(largest > 0, largest / 127, 1)
    return np.round(kernel / step) * step, step


def test_weights_are_rounded_for_each_output_by_itself():
    kernel = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    kernel[:, :, 1] *= 100  # An output with large weights costs the others nothing.
    kernel[0, :, 2, 2] = 0
    whole, factors = quantized(jnp.asarray(kernel), 3)
    assert whole.dtype == jnp.int8 and factors.shape == (2, 3, 4)
    found = np.asarray(whole, np.float32) * np.asarray(factors)[:, None]
    expected, step = by_hand(kernel, (1,))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert (np.abs(found - kernel) <= step / 2 * 1.0001).all()


def dequantized(params):
    """Parameters with the rounded kernels, for a model that knows of no int8."""
    wanted = decoding_model(MODEL, int8=True).abstract_params

    def walk(tree, like):
        if not isinstance(tree, dict):
            return tree
        if "scale" in like and "kernel" in like:
            kernel = np.asarray(tree["kernel"])
            inputs = tuple(range(1, 1 + kernel.ndim - like["scale"].ndim))
            return tree | {"kernel": by_hand(kernel, inputs)[0]}
        return {name: walk(x, like[name]) for name, x in tree.items()}

    return walk(params, wanted)


@pytest.fixture(scope="module")
def drawn():
    """Prompts, completions that int8 kernels drew, and the parameters."""
    params = tiny_params()
    generator = JaxGenerator(MODEL, params, TOKENIZER, rows=8, int8=True)
    prompts = ["ab:", "b:", "aab:"]
    groups = generator.generate(prompts, num_samples=8, max_new_tokens=12, seed=1)
    ids = TOKENIZER.encode_prompts(prompts)
    pairs = [(ids[i], c) for i, group in enumerate(groups) for c in group]
    samples = [Sampled(prompt, c.token_ids, c.logprobs) for prompt, c in pairs if c.token_ids]
    return params, samples


def logprobs_of(params, samples):
    """The log-probs of sampled tokens by a forward pass over each sequence."""
    found = []
    for sample in samples:
        tokens = jnp.asarray([[*sample.context, *sample.tokens]])
        positions = jnp.arange(tokens.shape[1])[None]
        hidden = MODEL.hidden(params, tokens, positions, jnp.ones_like(tokens))
        whole = token_logprobs(MODEL, params, hidden, tokens)
        found.append(np.asarray(whole[0, len(sample.context) :]))
    return np.concatenate(found)


def test_samples_have_the_logprobs_of_the_rounded_weights(drawn):
    params, samples = drawn
    own = np.concatenate([sample.logprobs for sample in samples])
    np.testing.assert_allclose(own, logprobs_of(dequantized(params), samples), atol=1e-4)
    kl, gap = divergence(own, logprobs_of(params, samples))
    assert 0 < kl < 1e-2 and gap > 1e-3


def test_an_int8_cache_changes_the_samples_a_little():
    """The sampler's own log-probs against those of a forward pass, which has no cache."""
    params = tiny_params()
    prompts = ["ab:", "b:", "aab:"]
    ids = TOKENIZER.encode_prompts(prompts)
    gaps = {}
    for int8_cache in (False, True):
        generator = JaxGenerator(MODEL, params, TOKENIZER, rows=6, int8_cache=int8_cache)
        groups = generator.generate(prompts, num_samples=2, max_new_tokens=12, seed=1)
        samples = [
            Sampled(ids[i], c.token_ids, c.logprobs)
            for i, group in enumerate(groups)
            for c in group
            if len(c.token_ids) > 1
        ]
        own = np.concatenate([sample.logprobs for sample in samples])
        gaps[int8_cache] = np.abs(own - logprobs_of(params, samples)).max()
    assert gaps[False] < 1e-4 and 1e-4 < gaps[True] < 0.1


def test_the_check_knows_of_int8(drawn):
    params, samples = drawn
    SamplerCheck(MODEL, "int8")(params, samples, 1.0)
    with pytest.raises(SamplerMismatch, match="with float32"):
        SamplerCheck(MODEL)(params, samples, 1.0)
    other = jax.tree.map(lambda x: 1.5 * x, params)
    with pytest.raises(SamplerMismatch, match="with int8"):
        SamplerCheck(MODEL, "int8")(other, samples, 1.0)


def test_all_kernels_of_layers_and_nothing_else_are_int8():
    copy = jax.eval_shape(reshard(MODEL, None, int8=True), MODEL.abstract_params)
    kinds = {
        jax.tree_util.keystr(path): leaf.dtype == jnp.int8
        for path, leaf in jax.tree_util.tree_leaves_with_path(copy)
    }
    assert {name for name, small in kinds.items() if small} == {
        name for name in kinds if "layers" in name and name.endswith("['kernel']")
    }
    assert sum(kinds.values()) == 7


def test_experts_are_refused():
    experts = Experts(num_experts=4, per_token=2, mlp_dim=8)
    model = LanguageModel(MODEL.config.replace(experts=experts, family="deepseek_v3"))
    with pytest.raises(ValueError, match="int8 weights: a model with a mixture of experts"):
        decoding_model(model, int8=True)
