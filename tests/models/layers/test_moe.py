"""Tests the mixture of experts against NumPy loops over single tokens and experts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from models.config import Experts, LatentAttention, ModelConfig
from models.decoder import LanguageModel
from models.layers.dense import MLP
from models.layers.moe import MoE, route

EXPERTS = Experts(
    num_experts=12, per_token=4, mlp_dim=6, num_shared=1, groups=4, groups_per_token=2, scale=2.5
)
CONFIG = ModelConfig(
    family="deepseek_v3", vocab_size=32, embed_dim=16, num_layers=3, num_heads=2, num_kv_heads=2,
    head_dim=12, mlp_dim=24,
    latent=LatentAttention(kv_rank=8, q_rank=10, nope_dim=8, rope_dim=4, value_dim=6),
    experts=dataclasses.replace(EXPERTS, first_layer=1),
)  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def chosen_by_hand(config, x_D, kernel_DE, bias_E):
    """`{expert: weight}` of one token, in words of arXiv:2412.19437, section 2.1.2."""
    affinity = [sigmoid(float(x_D @ kernel_DE[:, e])) for e in range(config.num_experts)]
    score = [a + b for a, b in zip(affinity, bias_E, strict=True)]
    size = config.num_experts // config.groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(config.groups)]
    groups.sort(key=lambda group: -sum(sorted((score[e] for e in group), reverse=True)[:2]))
    candidates = [e for group in groups[: config.groups_per_token] for e in group]
    best = sorted(candidates, key=lambda e: -score[e])[: config.per_token]
    total = sum(affinity[e] for e in best) if config.normalize else 1.0
    return {e: config.scale * affinity[e] / total for e in best}


def mlp_by_hand(x_D, gate, up, down):
    h = x_D @ gate
    return (h * sigmoid(h) * (x_D @ up)) @ down


def drawn(module, seed=0):
    """Graph and parameters drawn at random."""
    graph, state = nnx.split(module)
    rng = np.random.default_rng(seed)
    draw = lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32)  # noqa: E731
    return graph, jax.tree.map(draw, state)


def tokens(batch=3, length=7, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, length, 16)).astype(np.float32)


VARIANTS = {
    "groups": EXPERTS,
    "one_group": dataclasses.replace(EXPERTS, groups=1, groups_per_token=1),
    "all_groups": dataclasses.replace(EXPERTS, groups_per_token=4),
    "unnormalized": dataclasses.replace(EXPERTS, normalize=False, scale=1.0),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_router_chooses_as_the_paper_says(name):
    config, rng = VARIANTS[name], np.random.default_rng(2)
    x, kernel = rng.normal(size=(200, 16)), rng.normal(0, 0.5, (16, 12))
    bias = rng.normal(0, 0.3, 12)
    x, kernel, bias = (a.astype(np.float32) for a in (x, kernel, bias))
    chosen, weights = map(np.asarray, jax.jit(route, static_argnums=0)(config, x, kernel, bias))
    unbiased = 0
    for token in range(len(x)):
        expected = chosen_by_hand(config, x[token], kernel, bias)
        actual = dict(zip(chosen[token].tolist(), weights[token], strict=True))
        assert actual.keys() == expected.keys()
        for expert, weight in expected.items():
            np.testing.assert_allclose(actual[expert], weight, rtol=1e-5)
        unbiased += actual.keys() == chosen_by_hand(config, x[token], kernel, 0 * bias).keys()
    assert unbiased < 150  # The bias matters.


def test_groups_change_the_choice():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 16)).astype(np.float32)
    kernel = rng.normal(0, 0.5, (16, 12)).astype(np.float32)
    sets = [
        np.sort(route(VARIANTS[name], x, kernel, np.zeros(12, np.float32))[0], -1)
        for name in ("groups", "one_group", "all_groups")
    ]
    np.testing.assert_array_equal(sets[1], sets[2])
    assert 50 < (sets[0] != sets[1]).any(-1).sum() < 200


@pytest.mark.parametrize("name", VARIANTS)
def test_the_mixture_is_the_sum_over_each_tokens_experts(name):
    config = CONFIG.replace(experts=VARIANTS[name])
    graph, state = drawn(MoE(config, nnx.Rngs(0)))
    x = tokens()
    actual = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    moe = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
    for row in range(3):
        for column in range(7):
            token = x[row, column]
            shared = (moe["shared"][part]["kernel"] for part in ("gate", "up", "down"))
            expected = mlp_by_hand(token, *shared)
            router = moe["router"]["kernel"], moe["router"]["bias"]
            chosen = chosen_by_hand(config.experts, token, *router)
            for e, weight in chosen.items():
                parts = moe["gate"][e], moe["up"][e], moe["down"][e]
                expected = expected + weight * mlp_by_hand(token, *parts)
            np.testing.assert_allclose(actual[row, column], expected, atol=1e-5, rtol=1e-5)


def test_no_token_is_dropped_where_all_want_the_same_expert():
    """A capacity would drop some; here one expert takes every token."""
    config = CONFIG.replace(experts=Experts(num_experts=4, per_token=1, mlp_dim=6, num_shared=0))
    graph, state = drawn(MoE(config, nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    params["router"]["bias"] = np.array([0, 0, 9, 0], np.float32)
    nnx.replace_by_pure_dict(state, params)
    x = tokens(batch=4, length=64)
    out = nnx.merge(graph, state)(x)
    # Its weight is one: it is the only one that is chosen.
    expected = mlp_by_hand(x, *(params[part][2] for part in ("gate", "up", "down")))
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_experts_that_are_all_the_same_are_one_mlp():
    """Weights sum to one, so a mixture of copies of an MLP is the MLP."""
    config = CONFIG.replace(experts=Experts(num_experts=4, per_token=3, mlp_dim=6, num_shared=0))
    graph, state = drawn(MoE(config, nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    dense_graph, dense_state = drawn(MLP(config, nnx.Rngs(0), 6), seed=3)
    for part, kernel in nnx.to_pure_dict(dense_state).items():
        params[part] = np.broadcast_to(kernel["kernel"], params[part].shape)
    nnx.replace_by_pure_dict(state, params)
    x = tokens()

    def loss(x, graph, state):
        return jnp.sum(jnp.sin(nnx.merge(graph, state)(x)))

    for fn in (loss, jax.grad(loss)):
        np.testing.assert_allclose(
            fn(x, graph, state), fn(x, dense_graph, dense_state), atol=1e-5, rtol=1e-5
        )


def test_gradients_are_those_of_all_experts_masked():
    """Differentiated through every expert at every token, without any sorting."""
    graph, state = drawn(MoE(CONFIG, nnx.Rngs(0)))
    x = tokens()

    def masked(params, x):
        router = params["router"]["kernel"], params["router"]["bias"]
        chosen, weights = route(CONFIG.experts, x.reshape(-1, 16), *router)
        mask = jnp.sum(jax.nn.one_hot(chosen, 12) * weights[..., None], 1).reshape(3, 7, 12)
        hidden = jax.nn.silu(jnp.einsum("btd,edf->btef", x, params["gate"]))
        hidden *= jnp.einsum("btd,edf->btef", x, params["up"])
        out = jnp.einsum("btef,efd,bte->btd", hidden, params["down"], mask)
        gate, up, down = (params["shared"][part]["kernel"] for part in ("gate", "up", "down"))
        return out + (jax.nn.silu(x @ gate) * (x @ up)) @ down

    def ours(params, x):
        whole = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(whole, params)
        return nnx.merge(graph, whole)(x)

    params = nnx.to_pure_dict(state)
    gradients = [
        jax.jit(jax.grad(lambda p, x, f=f: jnp.sum(jnp.sin(f(p, x))), (0, 1)))(params, x)
        for f in (ours, masked)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), *gradients)
    assert not gradients[0][0]["router"]["bias"].any()
    assert gradients[0][0]["router"]["kernel"].any()


def test_parameters_are_counted_and_named():
    model = LanguageModel(CONFIG)
    assert CONFIG.num_params == sum(x.size for x in jax.tree.leaves(model.abstract_params))
    axes = model.logical_axes
    assert axes["layers"]["mlp"]["gate"] == ("layers", "experts", "embed", "mlp")
    assert axes["layers"]["mlp"]["down"] == ("layers", "experts", "mlp", "embed")
    kernel = axes["dense_layers"]["mlp"]["gate"]["kernel"]
    assert kernel == ("layers", "embed", "mlp")
    shapes = jax.tree.map(jnp.shape, model.abstract_params)
    assert shapes["dense_layers"]["mlp"]["gate"]["kernel"] == (1, 16, 24)
    assert shapes["layers"]["mlp"]["gate"] == (2, 12, 16, 6)


def test_parts_may_be_given_by_their_fields():
    """As config files do."""
    parts = {name: dataclasses.asdict(getattr(CONFIG, name)) for name in ("latent", "experts")}
    for parts in (parts, {name: ConfigDict(fields) for name, fields in parts.items()}):
        assert CONFIG.replace(**parts) == CONFIG
        assert hash(CONFIG.replace(**parts)) == hash(CONFIG)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_experts=10, groups=4), "10 experts do not divide into groups=4"),
        (dict(num_experts=4, groups=4), "groups=4 of at least 2"),
        (dict(num_experts=8, groups=2, groups_per_token=3), r"is not within 1\.\.2"),
        (dict(num_experts=8, groups=4, per_token=3), r"per_token=3 is not within 1\.\.2"),
    ],
)
def test_impossible_mixtures(fields, message):
    with pytest.raises(ValueError, match=message):
        Experts(**(dict(per_token=1, mlp_dim=4) | fields))


def test_layers_before_the_first_with_experts_exist():
    with pytest.raises(ValueError, match="experts from layer 3 on, but there are 3 layers"):
        CONFIG.replace(experts=dataclasses.replace(EXPERTS, first_layer=3))
