"""Updates against NumPy formulas, schedules by value, and rules over parameter paths."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from train.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer

PARAMS = {
    "embedding": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32),
    "head": {"kernel": np.array([[0.3, -0.1]], np.float32), "bias": np.array([2.0], np.float32)},
}
GRADS = [
    jax.tree.map(lambda p, k=k: np.float32(np.sin(k + 3 * p)), PARAMS) for k in range(3)
]  # fmt: skip


def updated(config, grads=GRADS, num_steps=10):
    """The parameters, and the metrics of the last of three updates."""
    optimizer = make_optimizer(config, PARAMS, num_steps)
    params = jax.tree.map(jnp.asarray, PARAMS)
    opt_state = optimizer.init(params)
    for step, each in enumerate(grads):
        trainable, frozen = optimizer.split(params)
        each = optimizer.split(each)[0]
        trainable, opt_state, metrics = optimizer.update(each, opt_state, trainable, step)
        params = optimizer.merge(trainable, frozen)
    return params, metrics, opt_state


def close(actual, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), actual, expected
    )


def test_adamw_equals_the_formula():
    """Loshchilov & Hutter 2019, algorithm 2, with biases not decayed."""
    config = dict(
        name="adamw", learning_rate=0.1, weight_decay=0.2, clip_norm=None, b1=0.8, b2=0.9, eps=1e-6
    )

    def expected(p, grads, decay):
        p, m, v = np.float64(p), 0.0, 0.0
        for t, g in enumerate(np.float64(grads), 1):
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            p = p - 0.1 * (m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-6) + decay * p)
        return p

    params, _, _ = updated(config)
    decays = {"embedding": 0.2, "head": {"kernel": 0.2, "bias": 0.0}}
    wanted = jax.tree.map(lambda p, decay, *g: expected(p, g, decay), PARAMS, decays, *GRADS)
    close(params, wanted)


def test_sgd_momentum_lion_and_adafactor():
    plain = dict(learning_rate=0.1, clip_norm=None)
    params, _, _ = updated(dict(name="sgd", momentum=0.5, **plain))
    traces = jax.tree.map(lambda a, b, c: 1.75 * a + 1.5 * b + c, *GRADS)
    close(params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, traces))

    params, _, _ = updated(dict(name="lion", b1=0.9, **plain), GRADS[:1])
    close(params, jax.tree.map(lambda p, g: p - 0.1 * np.sign(g), PARAMS, GRADS[0]))

    # Row and column sums determine a matrix of rank one, so there factoring loses nothing.
    rank_one = jax.tree.map(lambda p: np.outer([1.0, -2.0], [3.0, 0.5])[: len(p)].reshape(p.shape)
                            if p.size == 4 else np.ones_like(p), PARAMS)  # fmt: skip
    factored, _, state = updated(dict(name="adafactor", min_factored=2, **plain), [rank_one])
    assert {x.shape for x in jax.tree.leaves(state)} == {(), (1,), (2,), (1, 2)}
    whole, _, _ = updated(dict(name="adafactor", min_factored=3, **plain), [rank_one])
    close(factored, whole)


def test_clipping_scales_the_gradient_and_reports_its_norm():
    norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in jax.tree.leaves(GRADS[0])))
    for clip, factor in ((norm / 4, 0.25), (norm * 4, 1.0)):
        params, metrics, _ = updated(
            dict(name="sgd", learning_rate=1.0, clip_norm=float(clip)), GRADS[:1]
        )
        close(params, jax.tree.map(lambda p, g: p - factor * g, PARAMS, GRADS[0]))
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)
        assert metrics["clipped"] == (factor < 1)
        after = np.sqrt(sum(np.sum(np.square(p)) for p in jax.tree.leaves(params)))
        np.testing.assert_allclose(metrics["param_norm"], after, rtol=1e-6)


@pytest.mark.parametrize(
    "config, values",
    [
        (dict(schedule="constant"), {0: 2.0, 9: 2.0}),
        (dict(schedule="constant", warmup_steps=4), {0: 0.5, 1: 1.0, 3: 2.0, 4: 2.0}),
        (dict(schedule="linear"), {0: 2.0, 5: 1.0, 9: 0.2, 10: 0.0, 11: 0.0}),
        (dict(schedule="linear", warmup_steps=2, final_fraction=0.5), {0: 1.0, 2: 2.0, 6: 1.5}),
        (dict(schedule="cosine"), {0: 2.0, 5: 1.0, 10: 0.0}),
        (dict(schedule="cosine", final_fraction=0.1), {5: 1.1, 10: 0.2}),
        (dict(schedule="wsd", warmup_steps=2, decay_steps=4), {0: 1.0, 5: 2.0, 6: 2.0, 8: 1.0}),
    ],
    ids=lambda x: "-".join(map(str, x.values())),
)
def test_schedule_values(config, values):
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=2.0, **config), 10)
    actual = {step: float(jax.jit(schedule)(step)) for step in values}
    assert actual == pytest.approx(values, abs=1e-6)


def test_rules_freeze_and_scale():
    config = dict(
        name="sgd", learning_rate=1.0, clip_norm=None, momentum=0.9,
        lr_rules=(("embedding", 0.0), (r"head/ker.*", 0.5), ("rest", 1.0)),
    )  # fmt: skip
    params, metrics, opt_state = updated(config, GRADS[:1])
    np.testing.assert_array_equal(params["embedding"], PARAMS["embedding"])
    close(params["head"]["kernel"], PARAMS["head"]["kernel"] - 0.5 * GRADS[0]["head"]["kernel"])
    close(params["head"]["bias"], PARAMS["head"]["bias"] - GRADS[0]["head"]["bias"])
    # Neither in the optimizer's state nor in the norm.
    assert sum(x.size for x in jax.tree.leaves(opt_state)) == 3
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(GRADS[0]["head"])))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)


def test_config_dict():
    config = ml_collections.ConfigDict(
        dict(name="adamw", learning_rate=0.1, b2=0.9, lr_rules=(("head.*", 1.0), ("rest", 0.0)))
    )
    optimizer = make_optimizer(config, PARAMS, 10)
    assert optimizer.lr_multipliers == {"embedding": 0, "head/kernel": 1, "head/bias": 1}


@pytest.mark.parametrize(
    "config, message",
    [
        (dict(name="adam"), "unknown optimizer 'adam': choose adamw, muon, adafactor"),
        (dict(name="sgd", b2=0.9), "'sgd' has no setting 'b2': its own are momentum, nesterov; "),
        (dict(lerning_rate=1.0), "no setting 'lerning_rate'"),
        (dict(schedule="cos"), "unknown schedule 'cos'"),
        (dict(learning_rate=0.0), "learning_rate=0.0: it must be positive"),
        (dict(clip_norm=-1.0), "clip_norm=-1.0"),
        (dict(decay_steps=3), "decay_steps=3 with schedule 'constant'"),
        (dict(schedule="wsd"), "decay_steps=None with schedule 'wsd'"),
        (dict(final_fraction=0.1), "final_fraction is set but schedule 'constant'"),
        (dict(schedule="cosine", warmup_steps=10), "do not fit in a run of 10 steps"),
        (dict(schedule="wsd", warmup_steps=5, decay_steps=6), "do not fit in a run of 10 steps"),
        (dict(lr_rules=(("head/.*", 1.0),)), "'embedding' matches no rule"),
        (dict(lr_rules=(("head", 1.0), ("rest", 1.0))), "'head' matches no parameter"),
        (
            dict(lr_rules=((".*", 1.0), (".*bias", 0.0))),
            "'head/bias' matches '.\\*', '.\\*bias'; it must match one",
        ),
        (dict(lr_rules=(("rest", -1.0),)), "the multiplier of 'rest' is -1.0"),
        (dict(lr_rules=(("rest", 0.0),)), "freeze every parameter"),
    ],
    ids=lambda x: None if isinstance(x, str) else ",".join(map(str, x)),
)
def test_bad_configs(config, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(config, PARAMS, 10)


def test_muon_orthogonalizes_each_matrix_and_leaves_the_rest_to_adam():
    """Against a singular value decomposition; two stacked layers, heads on axes of their own."""
    rng = np.random.default_rng(0)
    shapes = {"q": (2, 6, 2, 4), "o": (2, 2, 4, 6)}
    params = {
        "embedding": rng.normal(size=(5, 6)).astype(np.float32),
        "layers": {
            "attention": {
                name: {"kernel": rng.normal(size=shape).astype(np.float32)}
                for name, shape in shapes.items()
            },
            "norm": {"scale": np.ones((2, 6), np.float32)},
        },
    }
    grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    settings = dict(learning_rate=0.1, clip_norm=None)

    def after_one_step(name):
        optimizer = make_optimizer(dict(name=name, **settings), params, 10)
        return optimizer.update(grads, optimizer.init(params), params, 0)[0]

    muon, adam = after_one_step("muon"), after_one_step("adamw")
    close(muon["embedding"], adam["embedding"])
    close(muon["layers"]["norm"], adam["layers"]["norm"])
    for name, inputs in (("q", 6), ("o", 8)):
        before = params["layers"]["attention"][name]["kernel"]
        change = (before - muon["layers"]["attention"][name]["kernel"]) / 0.1
        for layer in range(2):
            gradient = grads["layers"]["attention"][name]["kernel"][layer].reshape(inputs, -1)
            u, _, v = np.linalg.svd(np.float64(gradient), full_matrices=False)
            update = np.float64(change[layer]).reshape(inputs, -1)
            # Five Newton-Schulz steps bring the singular values near 1, and keep the directions.
            values = np.diag(u.T @ update @ v.T) / (0.2 * np.sqrt(max(update.shape)))
            assert (values > 0.6).all() and (values < 1.3).all()
            scaled = u @ np.diag(values) @ v * 0.2 * np.sqrt(max(update.shape))
            np.testing.assert_allclose(update, scaled, atol=1e-4)
