"""Tests properties of the decoder that need no reference implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig, RopeScaling
from models.decoder import LanguageModel

T = 12

# Every switch at once: what holds here holds for the families, which have one or two of them.
CONFIG = ModelConfig(
    family="qwen3",
    vocab_size=40,
    embed_dim=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=24,
    rope_scaling=RopeScaling(4.0, 1.0, 4.0, 8),
    qkv_bias=True,
    qk_norm=True,
)

# Compiling is most of the time of these tests, and more so for random draws.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def built():
    """The model and parameters with norm scales other than 1 and biases other than 0."""
    model = LanguageModel(CONFIG)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        scale = path[-1].key == "scale"
        noise = rng.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(1 + 0.1 * noise if scale else 0.3 * noise)

    return model, jax.tree.map_with_path(draw, model.abstract_params)


def forward(model, params, tokens, segments=None, positions=None):
    segments = jnp.ones_like(tokens) if segments is None else segments
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(_forward(model.config, params, tokens, positions, segments))


@functools.partial(jit, static_argnums=0)
def _forward(config, params, tokens, positions, segments):
    model = LanguageModel(config)
    return model.logits(params, model.hidden(params, tokens, positions, segments))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("switches", [{}, {"qkv_bias": False}, {"qk_norm": False}])
def test_num_params_is_the_real_count(switches, tied):
    config = CONFIG.replace(tie_embeddings=tied, **switches)
    abstract = LanguageModel(config).abstract_params
    assert config.num_params == sum(leaf.size for leaf in jax.tree.leaves(abstract))


def test_every_parameter_has_an_axis_name_for_each_dimension():
    model = LanguageModel(CONFIG)
    axes = model.logical_axes
    ranks = jax.tree.map(lambda leaf, names: len(names) - leaf.ndim, model.abstract_params, axes)
    assert not any(jax.tree.leaves(ranks))
    assert axes["layers"]["attention"]["q"]["kernel"] == ("layers", "embed", "heads", "head_dim")
    assert axes["lm_head"]["kernel"] == ("embed", "vocab")


def test_init_draws_every_layer_anew_at_the_scale_of_its_fan_in():
    model = LanguageModel(CONFIG.replace(embed_dim=64, mlp_dim=96, num_heads=8, head_dim=8))
    params = jit(model.init)(jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), model.abstract_params
    )
    mlp, attention = params["layers"]["mlp"], params["layers"]["attention"]
    for kernel, fan_in in ((mlp["gate"], 64), (mlp["down"], 96), (attention["o"], 8 * 8)):
        per_layer = np.asarray(kernel["kernel"]).reshape(3, -1)
        np.testing.assert_allclose(per_layer.std(1), fan_in**-0.5, rtol=0.05)
        assert len({row.tobytes() for row in per_layer}) == 3
    np.testing.assert_array_equal(params["final_norm"]["scale"], 1)
    np.testing.assert_array_equal(attention["k"]["bias"], 0)


def test_no_position_sees_what_follows_it():
    """The gradient of position t's output with respect to the inputs: zero after t, not before."""
    model, params = built()
    tokens = jnp.arange(T)[None]  # All different, so that row i of the embedding is input i.
    positions, segments = tokens, jnp.ones_like(tokens)
    weights = jax.random.normal(jax.random.key(2), (CONFIG.embed_dim,))

    @jit
    @functools.partial(jax.vmap, in_axes=0)
    def input_gradient(t):
        def output(params):
            return model.hidden(params, tokens, positions, segments)[0, t] @ weights

        return jax.grad(output)(params)["embedding"][:T]

    sensitivity_TS = np.abs(input_gradient(jnp.arange(T))).max(-1)
    earlier = np.tril(np.ones((T, T), bool))
    assert (sensitivity_TS[~earlier] == 0).all()
    assert (sensitivity_TS[earlier] > 1e-4).all()


def test_packed_segments_equal_rows_of_their_own():
    model, params = built()
    tokens = jax.random.randint(jax.random.key(3), (1, T), 0, CONFIG.vocab_size)
    lengths = (5, 4)  # And three tokens of padding.
    positions = jnp.array([[*range(5), *range(4), 0, 0, 0]])
    segments = jnp.array([[1] * 5 + [2] * 4 + [0] * 3])
    packed = forward(model, params, tokens, segments, positions)
    start = 0
    for length in lengths:
        alone = forward(model, params, tokens[:, start : start + length])
        np.testing.assert_allclose(packed[:, start : start + length], alone, atol=1e-5)
        start += length
    other = forward(model, params, tokens.at[:, start:].set(7), segments, positions)
    np.testing.assert_array_equal(packed[:, :start], other[:, :start])
    assert np.isfinite(packed).all()


def test_only_differences_of_positions_matter():
    model, params = built()
    tokens = jax.random.randint(jax.random.key(4), (1, T), 0, CONFIG.vocab_size)
    positions = jnp.arange(T)[None]
    base = forward(model, params, tokens, positions=positions)
    np.testing.assert_allclose(
        forward(model, params, tokens, positions=positions + 50), base, atol=1e-4
    )
    assert np.abs(forward(model, params, tokens, positions=positions * 2) - base).max() > 1e-2


def test_remat_saves_memory_and_changes_nothing_nor_does_unrolling():
    _, params = built()
    tokens = jax.random.randint(jax.random.key(5), (4, T), 0, CONFIG.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(T), tokens.shape)

    def compiled(**changes):
        model = LanguageModel(CONFIG.replace(**changes))

        def loss(params):
            hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
            return -jax.nn.log_softmax(model.logits(params, hidden))[..., 3].sum()

        return jit(jax.value_and_grad(loss)).lower(params).compile()

    plain, full = compiled(), compiled(remat="full")
    assert full.memory_analysis().temp_size_in_bytes < plain.memory_analysis().temp_size_in_bytes
    expected = plain(params)
    for program in (full, compiled(remat="dots", scan_unroll=CONFIG.num_layers)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4),
            program(params),
            expected,
        )


def test_logits_are_float32_whatever_the_compute_dtype():
    _, params = built()
    tokens = jax.random.randint(jax.random.key(6), (2, T), 0, CONFIG.vocab_size)
    exact = forward(LanguageModel(CONFIG), params, tokens)
    model = LanguageModel(CONFIG.replace(dtype="bfloat16"))
    positions = jnp.broadcast_to(jnp.arange(T), tokens.shape)
    hidden = jax.eval_shape(model.hidden, params, tokens, positions, tokens)
    rounded = forward(model, params, tokens)
    assert (hidden.dtype, rounded.dtype) == (jnp.bfloat16, np.float32)
    assert 0 < np.abs(rounded - exact).max() < 0.3


def test_flops_are_those_that_xla_counts():
    config = CONFIG.replace(num_layers=1, embed_dim=64, head_dim=32, mlp_dim=256, vocab_size=512)
    model = LanguageModel(config)
    tokens = jnp.zeros((1, 64), jnp.int32)

    def run(params):
        hidden = model.hidden(params, tokens, jnp.arange(64)[None], jnp.ones_like(tokens))
        return model.logits(params, hidden)

    counted = jit(run).lower(model.abstract_params).compile().cost_analysis()["flops"]
    # The program scores every pair of positions, masked or not; norms and softmax come on top.
    assert config.flops_per_token(context=64) * 64 == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "gpt2"}, "family='gpt2' is unknown; choose one of llama, qwen2, qwen3"),
        ({"num_kv_heads": 3}, "num_heads=4 is not a multiple of num_kv_heads=3"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"remat": "some"}, "remat='some' is unknown"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CONFIG.replace(**changes)
