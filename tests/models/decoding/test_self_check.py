"""Tests that the check of the sampler passes right samples and refuses wrong ones."""

import jax
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck, SamplerMismatch, divergence, mismatch

CONFIG = ModelConfig(
    family="qwen3", vocab_size=48, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=48, qk_norm=True, tie_embeddings=True, max_length=64,
)  # fmt: skip
PROMPTS = [[5, 6, 7], [9], [11, 3, 2, 40, 17, 8]]


@pytest.fixture(scope="module")
def model():
    return LanguageModel(CONFIG)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_what_the_sampler_drew_passes_and_what_was_changed_does_not(model, temperature):
    params = jax.tree.map(lambda x: 2 * x, model.init(jax.random.key(0)))
    sampler = Sampler(model, slots=2, group=1, max_new_tokens=12, stop_ids=[0])
    out = sampler(params, PROMPTS, jax.random.key(1), SamplingParams(temperature=temperature))
    drawn = [
        Sampled(prompt, out.ids(i, 0), out.logprobs[i, 0, : out.lengths[i, 0]])
        for i, prompt in enumerate(PROMPTS)
    ]
    check = SamplerCheck(model)
    kl, gap = check(params, drawn, temperature)
    assert kl < 1e-8 and gap < 1e-4
    off_by_a_token = [Sampled(s.context[1:] or [3], s.tokens, s.logprobs) for s in drawn]
    with pytest.raises(SamplerMismatch, match="disagree about the log-probs"):
        check(params, off_by_a_token, temperature)
    other_weights = jax.tree.map(lambda x: 1.05 * x, params)
    with pytest.raises(SamplerMismatch):
        check(other_weights, drawn, temperature)


def test_divergence_is_the_kl_of_the_two_distributions():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(50)), rng.dirichlet(np.ones(50))
    tokens = rng.choice(50, 200_000, p=p)
    kl, gap = divergence(np.log(p[tokens]), np.log(q[tokens]))
    assert kl == pytest.approx(np.sum(p * np.log(p / q)), rel=0.05)
    assert gap == pytest.approx(np.abs(np.log(p / q))[np.unique(tokens)].max())


def test_bounds_follow_the_dtype():
    assert mismatch(1e-3, 0.01, "float32") and not mismatch(1e-3, 0.01, "bfloat16")
    assert mismatch(1e-6, 0.1, "float32") and not mismatch(1e-6, 0.1, "bfloat16")
    assert mismatch(float("nan"), 0.0, "bfloat16")


def test_calls_are_checked_less_and_less_often(model):
    check = SamplerCheck(model)
    assert [call for call in range(1, 70) if check.due()] == [2, 4, 8, 16, 32, 64]
