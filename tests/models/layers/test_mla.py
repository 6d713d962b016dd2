"""Tests latent attention against NumPy, written out head by head, and its cache of latents."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.config import Experts, LatentAttention, ModelConfig, YarnScaling
from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.decoding.sampling import SamplingParams
from models.layers import attention
from models.layers.kv_cache import KVCache
from models.layers.mla import LatentAttention as Attention
from models.layers.rope import rope_angles, rope_frequencies
from models.named_configs import named_config

LATENT = LatentAttention(kv_rank=6, q_rank=10, nope_dim=8, rope_dim=4, value_dim=5)
CONFIG = ModelConfig(
    family="deepseek_v3", vocab_size=48, embed_dim=16, num_layers=3, num_heads=3, num_kv_heads=3,
    head_dim=12, mlp_dim=24, norm_eps=1e-2, max_length=64, latent=LATENT,
    experts=Experts(
        num_experts=8, per_token=3, mlp_dim=12, groups=4, groups_per_token=2, first_layer=1
    ),
)  # fmt: skip
YARN = YarnScaling(40.0, 4096, mscale=0.5, mscale_all_dim=1.0)
CONFIGS = {
    "plain": CONFIG,
    "no_q_rank": CONFIG.replace(latent=dataclasses.replace(LATENT, q_rank=None)),
    "yarn": CONFIG.replace(rope_scaling=YARN),
}


def rms(x):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6)


def rotated(x, position, config):
    """Pairs (2i, 2i + 1) as complex numbers."""
    size = len(x)
    frequencies = config.rope_theta ** (-np.arange(0, size, 2) / size)
    scale = 1.0
    if config.rope_scaling is not None:
        frequencies = np.asarray(rope_frequencies(config), np.float64)
        scale = (0.05 * math.log(40) + 1) / (0.1 * math.log(40) + 1)
    pairs = (x[::2] + 1j * x[1::2]) * np.exp(1j * position * frequencies) * scale
    return np.stack([pairs.real, pairs.imag], -1).ravel()


def written_out(config, params, x, positions):
    """`[T, D]` of one segment; arXiv:2412.19437, equations 1 to 11."""
    p = jax.tree.map(np.float64, params)
    latent, length = config.latent, len(x)
    if latent.q_rank is None:
        queries = np.einsum("td,dnh->tnh", x, p["q"]["kernel"])
    else:
        c_q = rms(x @ p["q_a"]["kernel"]) * p["q_norm"]["scale"]
        queries = np.einsum("tr,rnh->tnh", c_q, p["q_b"]["kernel"])
    compressed = x @ p["kv_a"]["kernel"]
    c_kv = rms(compressed[:, : latent.kv_rank]) * p["kv_norm"]["scale"]
    shared_keys = [
        rotated(compressed[t, latent.kv_rank :], positions[t], config) for t in range(length)
    ]
    scale = (latent.nope_dim + latent.rope_dim) ** -0.5
    if config.rope_scaling is not None:
        scale *= (0.1 * math.log(40) + 1) ** 2
    out = np.zeros((length, config.num_heads, latent.value_dim))
    for n in range(config.num_heads):
        keys = c_kv @ p["kv_b"]["kernel"][:, n, : latent.nope_dim]
        values = c_kv @ p["kv_b"]["kernel"][:, n, latent.nope_dim :]
        for t in range(length):
            turned = rotated(queries[t, n, latent.nope_dim :], positions[t], config)
            scores = np.array(
                [
                    queries[t, n, : latent.nope_dim] @ keys[s] + turned @ shared_keys[s]
                    for s in range(t + 1)
                ]
            )
            weights = np.exp(scale * scores)
            out[t, n] = weights @ values[: t + 1] / weights.sum()
    return np.einsum("tnh,nhd->td", out, p["o"]["kernel"])


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_attention_is_that_of_the_paper(name, absorbed):
    """In both forms: keys and values of every head, and latents in their place."""
    config, rng = CONFIGS[name], np.random.default_rng(0)
    graph, state = nnx.split(Attention(config, nnx.Rngs(0)))
    state = jax.tree.map(lambda x: rng.normal(0.2, 0.5, x.shape).astype(np.float32), state)
    x = rng.normal(size=(2, 7, 16)).astype(np.float32)
    positions = np.array([np.arange(7), np.arange(7) + 20])

    def attend(q, k, v, cache, layer):
        assert k.shape[2:] == ((1, 10) if absorbed else (3, 12))
        assert v.shape[2:] == ((1, 6) if absorbed else (3, 5))
        return attention.packed_attention(q, k, v, np.ones((2, 7), np.int32)), cache

    rope = rope_angles(jnp.asarray(positions), config)
    out, _ = nnx.merge(graph, state)(x, rope, attend, True if absorbed else None, 0)
    params = nnx.to_pure_dict(state)
    for row in range(2):
        expected = written_out(config, params, np.float64(x[row]), positions[row])
        np.testing.assert_allclose(out[row], expected, atol=2e-4, rtol=1e-4)


def test_yarn_keeps_fast_pairs_and_slows_others():
    """The published model's, from 4,096 to 163,840 tokens."""
    config = named_config("deepseek-v3")
    scaled = np.asarray(rope_frequencies(config), np.float64)
    plain = 10_000.0 ** (-np.arange(0, 64, 2) / 64)
    turns = 4096 * plain / (2 * np.pi)
    # Whole pairs bound the blend, so it may start one pair early and end one late.
    np.testing.assert_allclose(scaled[turns > 32 * 1.34], plain[turns > 32 * 1.34], rtol=1e-6)
    np.testing.assert_allclose(scaled[turns < 1 / 1.34], plain[turns < 1 / 1.34] / 40, rtol=1e-6)
    between = (scaled / plain)[(turns > 1.34) & (turns < 32 / 1.34)]
    assert (np.diff(between) < 0).all() and between.max() < 1 and between.min() > 1 / 40
    assert config.rope_scaling.rotation_scale == 1
    np.testing.assert_allclose(config.rope_scaling.score_scale, 1.3688879**2, rtol=1e-6)


@pytest.fixture(scope="module", params=["yarn", "no_q_rank"])
def setup(request):
    model = LanguageModel(CONFIGS[request.param])
    params = jax.tree.map(lambda x: x * 1.5 + 0.1 * (x == 0), model.init(jax.random.key(0)))

    @jax.jit
    def log_softmax(tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
        return jax.nn.log_softmax(model.logits(params, hidden))[0]

    def forward(ids):
        return np.asarray(log_softmax(jnp.array([[*ids] + [1] * (24 - len(ids))])))[: len(ids)]

    return model, params, forward


PROMPTS = [[5, 6, 7], [9], [11, 3, 2, 40, 17, 8]]


def test_greedy_is_the_argmax_of_the_full_forward_pass(setup):
    model, params, forward = setup
    sampler = Sampler(model, slots=2, group=3, max_new_tokens=12, stop_ids=[0], admit=1)
    out = sampler(params, PROMPTS, jax.random.key(1), SamplingParams(temperature=0.0))
    for i, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        while len(ids) < len(prompt) + 12:
            ids.append(int(forward(ids)[-1].argmax()))
            if ids[-1] == 0:
                break
        assert out.ids(i, 0) == out.ids(i, 2) == ids[len(prompt) :]


@pytest.mark.parametrize("group", [1, 3])
def test_logprobs_equal_those_of_a_fresh_forward_pass(setup, group):
    model, params, forward = setup
    sampler = Sampler(model, slots=2, group=group, max_new_tokens=12, stop_ids=[0])
    out = sampler(params, PROMPTS, jax.random.key(2))
    for i, prompt in enumerate(PROMPTS):
        for g in range(group):
            ids = out.ids(i, g)
            at = np.arange(len(ids)) + len(prompt) - 1
            expected = forward([*prompt, *ids])[at, ids]
            np.testing.assert_allclose(out.logprobs[i, g, : len(ids)], expected, atol=1e-4)


def test_unrolled_layers_of_both_kinds_give_the_same_logits(setup):
    model, params, _ = setup
    unrolled = LanguageModel(model.config.replace(scan_unroll=3))
    tokens = jnp.arange(12).reshape(2, 6)
    positions = jnp.broadcast_to(jnp.arange(6), (2, 6))

    @jax.jit
    def logits(params):
        return unrolled.logits(
            params, unrolled.hidden(params, tokens, positions, jnp.ones_like(tokens))
        )

    laid_out = jax.jit(lambda params: logits(unrolled.for_loop(params, 9)))(params)
    expected = model.logits(params, model.hidden(params, tokens, positions, jnp.ones_like(tokens)))
    np.testing.assert_allclose(laid_out, expected, atol=1e-5)


def test_the_cache_holds_latents():
    cache = jax.eval_shape(lambda: KVCache.zeros(named_config("deepseek-v3"), 1, 1, 8, 8))
    assert cache.prefix_k.shape == (61, 1, 1, 512 + 64, 8)
    assert cache.suffix_v.shape == (61, 1, 1, 1, 8, 512)


def test_sizes_that_contradict_each_other():
    with pytest.raises(ValueError, match="head_dim=10 and num_kv_heads=3: they must be .* = 12"):
        CONFIG.replace(head_dim=10)
