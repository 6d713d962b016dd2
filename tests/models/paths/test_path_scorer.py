"""Tests the values of steps against a full forward pass of the same scalar model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import Experts, LatentAttention, ModelConfig, YarnScaling
from models.paths.path_scorer import PathScorer
from models.scalar_head import ScalarModel

VOCAB, WIDTH, PLACES, LONGEST = 48, 3, 5, 40
CONFIG = ModelConfig(
    family="qwen3", vocab_size=VOCAB, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=48, qk_norm=True, max_length=256,
)  # fmt: skip
DEEPSEEK = CONFIG.replace(
    family="deepseek_v3", qk_norm=False, num_kv_heads=4, head_dim=12,
    rope_scaling=YarnScaling(4.0, 16, mscale=1.0, mscale_all_dim=1.0),
    latent=LatentAttention(kv_rank=8, q_rank=16, nope_dim=8, rope_dim=4, value_dim=10),
    experts=Experts(
        num_experts=8, per_token=2, mlp_dim=16, groups=4, groups_per_token=2, first_layer=1
    ),
)  # fmt: skip
VARIANTS = {
    "gqa": CONFIG,
    "qwen2": CONFIG.replace(family="qwen2", qk_norm=False, qkv_bias=True, num_kv_heads=1),
    "deepseek": DEEPSEEK,
}
PROMPTS = [[5, 6, 7], [9], [11, 3, 2, 40, 17, 8]]


def make_params(config):
    params = ScalarModel(config).init(jax.random.key(0))
    # Sharp latents make 1e-3 of a rounding error.
    sharper = 2.0 if config.latent is None else 1.2
    return jax.tree.map(lambda x: x * sharper + 0.1 * (x == 0), params)


def make_scorer(config=CONFIG, places=PLACES):
    return PathScorer(
        ScalarModel(config),
        prompts=4,
        capacity=places,
        width=WIDTH,
        max_new_tokens=LONGEST,
        step_tokens=14,
    )


def make_forward(config, params):
    """Values `[tokens]` of one sequence by the plain forward pass."""
    model = ScalarModel(config)

    @jax.jit
    def values(tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
        return model.values(params, hidden)[0]

    return lambda ids: np.asarray(values(jnp.array([[*ids] + [1] * (64 - len(ids))])))[: len(ids)]


@pytest.fixture(scope="module")
def params():
    return make_params(CONFIG)


@pytest.mark.parametrize(
    "variant, places", [*((name, PLACES) for name in VARIANTS), ("gqa", WIDTH), ("deepseek", 2)]
)
def test_values_equal_those_of_a_full_forward_pass(variant, places):
    """Random steps behind random paths: forked, overwritten, permuted, of ragged lengths; in more
    places than rows, as many, and fewer."""
    config, rng = VARIANTS[variant], np.random.default_rng(0)
    params, scorer = make_params(config), make_scorer(config, places)
    forward, pool = make_forward(config, params), scorer.start(make_params(config), PROMPTS)
    held = [{-1: []} for _ in PROMPTS]
    longest = 0
    for number in range(12):
        parents, into = np.full((4, WIDTH), -1), np.full((4, WIDTH), -1)
        tokens, lengths = rng.integers(0, VOCAB, (4, WIDTH, 14)), rng.integers(1, 15, (4, WIDTH))
        for p, paths in enumerate(held):
            room = [place for place, ids in paths.items() if len(ids) <= LONGEST - 14]
            parents[p] = rng.choice(room, WIDTH)
            into[p] = rng.permutation(max(places, WIDTH))[:WIDTH]
            into[p] = np.where((rng.random(WIDTH) < 0.2) | (into[p] >= places), -1, into[p])
        pool, values = scorer.extend(
            params, pool, parents, into, tokens, lengths, donate=bool(number % 3)
        )
        assert np.isnan(values.last[into < 0]).all() and np.isnan(values.tokens[into < 0]).all()
        before = [dict(paths) for paths in held]
        for p, row in zip(*np.nonzero(into >= 0)):
            step = tokens[p, row, : lengths[p, row]].tolist()
            ids = before[p][parents[p, row]] + step
            held[p][into[p, row]] = ids
            expected = forward([*PROMPTS[p], *ids])[-len(step) :]
            np.testing.assert_allclose(values.tokens[p, row, : len(step)], expected, atol=1e-4)
            assert np.isnan(values.tokens[p, row, len(step) :]).all()
            np.testing.assert_allclose(values.last[p, row], expected[-1], atol=1e-4)
            longest = max(longest, len(ids))
    assert longest > 28


def test_old_pools_stay_and_nothing_recompiles(params):
    scorer, rng = make_scorer(), np.random.default_rng(1)
    tokens, lengths = rng.integers(0, VOCAB, (4, WIDTH, 8)), np.full((4, WIDTH), 3)
    everywhere = np.tile(np.arange(WIDTH), (4, 1))
    everywhere[3] = -1  # There are three prompts.
    pool = scorer.start(params, PROMPTS)
    pool, first = scorer.extend(params, pool, np.full((4, WIDTH), -1), everywhere, tokens, lengths)
    _, expected = scorer.extend(params, pool, everywhere, everywhere, tokens, lengths)
    compilations = scorer.compilations
    other = pool
    for length in (1, 5, 8):
        other, _ = scorer.extend(
            params, other, everywhere, everywhere, tokens, np.full_like(lengths, length)
        )
    _, again = scorer.extend(params, pool, everywhere, everywhere, tokens, lengths)
    np.testing.assert_array_equal(again.tokens, expected.tokens)
    assert (first.last[:3] != expected.last[:3]).all()
    assert scorer.compilations == compilations == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lengths": np.zeros((4, WIDTH), int)}, "a step has 0 tokens; it must have 1..8"),
        ({"lengths": np.full((4, WIDTH), 9)}, "a step has 9 tokens; it must have 1..8"),
        ({"tokens": np.full((4, WIDTH, 8), VOCAB)}, "outside the verifier's vocabulary of 48"),
        (
            {"parents": np.full((4, WIDTH), 2)},
            "place 2 of prompt 0 holds no path; it cannot be extended",
        ),
    ],
)  # fmt: skip
def test_bad_steps_are_named(params, changes, message):
    scorer, into = make_scorer(), np.full((4, WIDTH), -1)
    into[0] = np.arange(WIDTH)
    request = dict(
        parents=np.full((4, WIDTH), -1), into=into, tokens=np.ones((4, WIDTH, 8), int),
        lengths=np.full((4, WIDTH), 2),
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        scorer.extend(params, scorer.start(params, PROMPTS), **request | changes)
