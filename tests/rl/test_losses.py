"""Tests the policy losses against explicit float64 formulas (policy_loss_oracle) and
invariances.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl.advantages import token_weights
from rl.losses import PolicyLossConfig, mean_metrics, policy_loss
from rl.variants import VARIANTS, get_variant
from tests.rl import policy_loss_oracle as oracle

GARBAGE = (np.inf, -np.inf, np.nan, 1e30, -7.0)
MAX_TOKENS = 16
LOSS_AND_GRADIENT = jax.value_and_grad(policy_loss, has_aux=True)
SHAPES = {"one": [1], "equal": [4, 4, 4], "many": [7, 4, 12, 1, 9, 2]}

# Name -> (aggregation, config, drift between the policies, at which both sides are clipped).
CASES = {name: (v.aggregation, v.loss, 0.4) for name, v in VARIANTS.items()}
CASES["gspo"] = (*CASES["gspo"][:2], 6e-4)
CASES |= {
    "grpo_k2": ("sequence_mean", PolicyLossConfig(beta=0.3, kl_estimator="k2"), 0.4),
    "grpo_k3": ("sequence_mean", PolicyLossConfig(beta=0.3, kl_estimator="k3"), 0.4),
    "grpo_tis": ("sequence_mean", PolicyLossConfig(beta=0.1, tis_cap=1.2), 0.4),
    "dapo_dual_clip": ("token_mean", PolicyLossConfig(clip_high=0.28, dual_clip=1.3), 0.6),
    "mask_low": ("token_mean", PolicyLossConfig(mask_low=0.8), 0.4),
    "mask_sequence": (
        "sequence_mean",
        PolicyLossConfig(mask_low=0.9, mask_high=1.1, correction_level="sequence", beta=0.2),
        0.4,
    ),
    "mask_product_tis": (
        "constant",
        PolicyLossConfig(
            mask_high=1.5, correction_level="sequence_product", tis_cap=1.2, objective="cispo"
        ),
        0.4,
    ),
    "gspo_wide": ("sequence_mean", PolicyLossConfig(ratio_level="sequence"), 0.4),
    "gspo_tis_kl": (
        "sequence_mean",
        PolicyLossConfig(ratio_level="sequence", tis_cap=1.1, beta=0.2),
        0.4,
    ),
    "cispo_two_sided": (
        "constant",
        PolicyLossConfig(objective="cispo", clip_high=0.3, tis_cap=2.0),
        0.4,
    ),
}


def pack(completions, weights, rows, rng, prompt_length=2, shape=(7, 52)):
    """Lays completions out in rows behind prompts, with garbage wherever nothing is trained.

    `rows` lists the completions of each row. Returns the batch, the `[rows, length]` log-probs, and
    for each completion its (row, slice). One shape for all keeps the tests fast: JAX compiles once.
    """
    names = ("logprobs", "old_logprobs", "behaviour_logprobs", "reference_logprobs", "advantages")
    arrays = {name: rng.choice(GARBAGE, shape).astype(np.float32) for name in names}
    arrays["loss_weights"] = np.zeros(shape, np.float32)
    arrays["segment_ids"] = np.zeros(shape, np.int32)
    places = {}
    for r, row in enumerate(rows):
        start = 0
        for segment, i in enumerate(row, start=1):
            end = start + prompt_length + len(completions[i].logprobs)
            arrays["segment_ids"][r, start:end] = segment
            place = places[i] = (r, slice(start + prompt_length, end))
            for name, field in zip(
                names, ("logprobs", "old", "behaviour", "reference", "advantage"), strict=True
            ):
                arrays[name][place] = getattr(completions[i], field)
            arrays["loss_weights"][place] = weights[i]
            start = end
    logprobs = arrays.pop("logprobs")
    return arrays, logprobs, places


def layouts(number):
    """Unpacked, three to a row, and all in one row."""
    every = list(range(number))
    return {
        "unpacked": [[i] for i in every],
        "packed": [every[i : i + 3] for i in range(0, number, 3)],
        "one_row": [every],
    }


def weights_for(completions, aggregation):
    lengths = [len(c.logprobs) for c in completions]
    return token_weights(lengths, aggregation, MAX_TOKENS if aggregation == "constant" else None)


# Truncated importance sampling needs old log-probs; without it both kinds of old policy are tried.
@pytest.mark.parametrize(
    ("case", "use_old"),
    [
        (case, use_old)
        for case in CASES
        for use_old in (True, False)
        if use_old or not CASES[case][1].corrects
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_equal_written_out_formula(case, shape, use_old):
    aggregation, config, drift = CASES[case]
    rng = np.random.default_rng(len(case) + 10 * len(shape))
    completions = oracle.random_completions(rng, SHAPES[shape], drift)
    arguments = (config, aggregation, MAX_TOKENS, use_old)
    expected_loss = oracle.loss(completions, [c.logprobs for c in completions], *arguments)
    expected_gradient = oracle.loss_gradient(completions, *arguments)
    gradient_scale = max(np.abs(g).max() for g in expected_gradient)

    for rows in layouts(len(completions)).values():
        batch, logprobs, places = pack(
            completions, weights_for(completions, aggregation), rows, rng
        )
        if not use_old:
            del batch["old_logprobs"]
        (loss, _), gradient = LOSS_AND_GRADIENT(logprobs, batch, config)
        np.testing.assert_allclose(loss, expected_loss, rtol=2e-5, atol=2e-6)
        left = np.array(gradient)
        for i, place in places.items():
            np.testing.assert_allclose(
                gradient[place], expected_gradient[i], rtol=1e-4, atol=2e-5 * gradient_scale
            )
            left[place] = 0.0
        assert not left.any()  # Neither prompts nor padding get a gradient, and nothing is NaN.


@pytest.mark.parametrize("case", ["grpo_k3", "gspo_wide", "cispo", "rloo"])
def test_gradient_through_a_table_of_logits(case):
    """Chained by hand: d log softmax(z)[token] / d z = onehot(token) - softmax(z)."""
    aggregation, config, drift = CASES[case]
    rng = np.random.default_rng(3)
    vocab, contexts = 5, 4
    completions = oracle.random_completions(rng, [3, 6, 2], drift)
    table = rng.standard_normal((contexts, vocab))
    probs = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    expected = np.zeros_like(table)
    drawn = []
    for c in completions:
        drawn.append(
            (
                rng.integers(contexts, size=len(c.logprobs)),
                rng.integers(vocab, size=len(c.logprobs)),
            )
        )
        shift = np.log(probs[drawn[-1]]) - c.logprobs  # Keep the distances between the policies.
        for field in ("logprobs", "old", "behaviour", "reference"):
            setattr(c, field, getattr(c, field) + shift)
    for (context, token), gradient in zip(
        drawn, oracle.loss_gradient(completions, config, aggregation), strict=True
    ):
        for x, y, g in zip(context, token, gradient, strict=True):
            expected[x] += g * (np.eye(vocab)[y] - probs[x])

    batch, _, places = pack(completions, weights_for(completions, aggregation), [[0, 1], [2]], rng)
    context, token = np.zeros((2, *batch["segment_ids"].shape), np.int32)
    for i, place in places.items():
        context[place], token[place] = drawn[i]

    def loss(table):
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(table)[context], token[..., None], -1)[
            ..., 0
        ]
        return policy_loss(logprobs, batch, config)[0]

    np.testing.assert_allclose(
        jax.grad(loss)(table.astype(np.float32)), expected, rtol=2e-4, atol=2e-6
    )


@pytest.mark.parametrize("case", ["grpo", "gspo"])
def test_rows_of_padding_change_nothing(case):
    aggregation, config, drift = CASES[case]
    rng = np.random.default_rng(4)
    completions = oracle.random_completions(rng, [3, 5], drift)
    batch, logprobs, _ = pack(completions, weights_for(completions, aggregation), [[0, 1]], rng)
    padding = {
        name: np.full_like(x, 0 if name in ("loss_weights", "segment_ids") else np.nan)
        for name, x in batch.items()
    }
    padded = {name: np.concatenate([x, padding[name]]) for name, x in batch.items()}
    loss, metrics = policy_loss(logprobs, batch, config)
    padded_loss, padded_metrics = policy_loss(
        np.concatenate([logprobs, logprobs * np.nan]), padded, config
    )
    assert loss == padded_loss
    assert metrics == padded_metrics


@pytest.mark.parametrize("name", VARIANTS)
def test_on_policy_gradient_is_reinforce(name):
    """At the policy that sampled, every variant's surrogate has the gradient of -A log policy."""
    variant = get_variant(name, loss={"beta": 0.0})
    rng = np.random.default_rng(5)
    completions = oracle.random_completions(rng, [3, 5, 2])
    for c in completions:
        c.old = c.behaviour = c.logprobs
    batch, logprobs, places = pack(
        completions, weights_for(completions, variant.aggregation), [[0, 1], [2]], rng
    )
    gradient, metrics = jax.grad(policy_loss, has_aux=True)(logprobs, batch, variant.loss)
    divisor = {
        "sequence_mean": lambda c: 3 * len(c.logprobs),
        "token_mean": lambda c: 10,
        "constant": lambda c: 3 * MAX_TOKENS,
    }[variant.aggregation]
    for i, place in places.items():
        # The product of ratios makes a completion one action: each token's score counts in full.
        scale = (
            len(completions[i].logprobs) if variant.loss.ratio_level == "sequence_product" else 1
        )
        reinforce = -completions[i].advantage * scale / divisor(completions[i])
        np.testing.assert_allclose(gradient[place], reinforce, rtol=1e-6)
    means = mean_metrics(metrics)
    assert means["ratio"] == means["ratio_max"] == 1.0
    assert means["clip_high"] == means["clip_low"] == means["old_kl"] == 0.0


@pytest.mark.parametrize("objective", ["clip", "cispo"])
@pytest.mark.parametrize("ratio_level", ["token", "sequence", "sequence_product"])
@pytest.mark.parametrize("bad", [-np.inf, -400.0, -1e-3])
def test_gradient_is_finite_for_impossible_behaviour(objective, ratio_level, bad):
    """A sampler may call a token impossible that the trainer does not (or the other way round)."""
    config = PolicyLossConfig(objective=objective, ratio_level=ratio_level, beta=0.1, tis_cap=2.0)
    rng = np.random.default_rng(6)
    completions = oracle.random_completions(rng, [3, 5])
    for c, sign in zip(completions, (1, -1), strict=True):
        c.advantage = sign * 1.0
        c.old[1] = bad
        c.behaviour[2] = bad
        c.logprobs[0] = -300.0
    batch, logprobs, _ = pack(completions, weights_for(completions, "sequence_mean"), [[0, 1]], rng)
    (loss, _), gradient = LOSS_AND_GRADIENT(logprobs, batch, config)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_metrics_equal_counts_by_hand_and_add_up():
    config = PolicyLossConfig(clip_low=0.2, clip_high=0.3, beta=0.5, tis_cap=1.5)
    rng = np.random.default_rng(7)
    lengths = [3, 5, 2, 9]
    completions = oracle.random_completions(rng, lengths, drift=0.5)
    weights = weights_for(completions, "sequence_mean")
    for c, sign in zip(completions, (1, -1, 1, -1), strict=True):
        c.advantage = sign * abs(c.advantage)
    batch, logprobs, _ = pack(completions, weights, [[0, 1, 2, 3]], rng)
    loss, metrics = policy_loss(logprobs, batch, config)

    logprob, old, behaviour, reference = (
        np.concatenate([getattr(c, name) for c in completions])
        for name in ("logprobs", "old", "behaviour", "reference")
    )
    advantage, weight = (
        np.repeat([c.advantage for c in completions], lengths),
        np.repeat(weights, lengths),
    )
    ratio, correction = np.exp(logprob - old), np.exp(old - behaviour)
    k3 = lambda log_ratio: np.sum(np.exp(log_ratio) - log_ratio - 1)
    expected = {
        "tokens": 19,
        "ratio": ratio.sum(),
        "ratio_max": ratio.max(),
        "clip_high": np.sum((ratio > 1.3) & (advantage > 0)),
        "clip_low": np.sum((ratio < 0.8) & (advantage < 0)),
        "tis_weight": np.minimum(correction, 1.5).sum(),
        "tis_truncated": np.sum(correction > 1.5),
        "old_kl": k3(logprob - old),
        "first_sampler_kl": k3(logprob - behaviour),
        "first_sampler_gap_max": np.abs(logprob - behaviour).max(),
        "reference_kl": k3(reference - logprob),
        "nll": -logprob.sum(),
        "kl_loss": 0.5 * np.sum(weight * (np.exp(reference - logprob) - (reference - logprob) - 1)),
        "policy_loss": oracle.loss(
            completions,
            [c.logprobs for c in completions],
            dataclasses.replace(config, beta=0.0),
            "sequence_mean",
        ),
    }
    assert expected["clip_high"] > 0 and expected["clip_low"] > 0 and expected["tis_truncated"] > 0
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss, metrics["policy_loss"] + metrics["kl_loss"], rtol=1e-6)

    # Gradient accumulation: two micro-batches with the weights of the whole step.
    merged, merged_loss = None, 0.0
    for rows in ([[0], [3]], [[1, 2]]):
        part, part_logprobs, _ = pack(completions, weights, rows, rng)
        part_loss, part_metrics = policy_loss(part_logprobs, part, config)
        combine = lambda name: max if name.endswith("_max") else sum
        both = [merged, part_metrics] if merged else [part_metrics]
        merged = {name: combine(name)([x[name] for x in both]) for name in part_metrics}
        merged_loss += part_loss
    np.testing.assert_allclose(merged_loss, loss, rtol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-5, err_msg=name)
    means = mean_metrics(merged)
    np.testing.assert_allclose(means["ratio"], ratio.mean(), rtol=1e-5)
    np.testing.assert_allclose(means["ratio_max"], ratio.max(), rtol=1e-5)
    np.testing.assert_allclose(means["kl_loss"], expected["kl_loss"], rtol=1e-5)


def test_dual_clip_counts_only_negative_advantages():
    config = PolicyLossConfig(dual_clip=2.0)
    rng = np.random.default_rng(10)
    completions = oracle.random_completions(rng, [4, 3])
    for c, advantage in zip(completions, (-1.0, 1.0), strict=True):
        c.old, c.advantage = c.logprobs - np.log([3.0, 1.5, 2.5, 0.3])[: len(c.logprobs)], advantage
    batch, logprobs, _ = pack(completions, weights_for(completions, "token_mean"), [[0, 1]], rng)
    assert policy_loss(logprobs, batch, config)[1]["dual_clip"] == 2


def test_sequence_clipping_takes_whole_sequences():
    config = PolicyLossConfig(ratio_level="sequence", clip_low=0.1, clip_high=0.1)
    rng = np.random.default_rng(8)
    completions = oracle.random_completions(rng, [4, 3])
    for c, drift in zip(completions, (0.5, 0.01), strict=True):
        c.old, c.advantage = c.logprobs - drift, 1.0
    batch, logprobs, places = pack(
        completions, weights_for(completions, "sequence_mean"), [[0, 1]], rng
    )
    gradient, metrics = jax.grad(policy_loss, has_aux=True)(logprobs, batch, config)
    assert metrics["clip_high"] == 4
    assert not gradient[places[0]].any() and gradient[places[1]].all()


def test_k1_in_the_loss_has_no_gradient_in_expectation_and_is_refused():
    """Why, on all tokens of a small softmax: E[grad k1] = 0, while E[grad k2] = grad KL."""
    policy, reference = jax.nn.log_softmax(jnp.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2]]))

    def expected_gradient(kl):
        sampled = jax.lax.stop_gradient(jnp.exp(policy))
        return jax.grad(lambda z: jnp.sum(sampled * kl(jax.nn.log_softmax(z))))(policy)

    kl_gradient = jax.grad(
        lambda z: jnp.sum(jax.nn.softmax(z) * (jax.nn.log_softmax(z) - reference))
    )(policy)
    np.testing.assert_allclose(
        expected_gradient(lambda logprob: logprob - reference), 0.0, atol=1e-6
    )
    np.testing.assert_allclose(
        expected_gradient(lambda logprob: (logprob - reference) ** 2 / 2), kl_gradient, atol=1e-6
    )
    assert np.abs(kl_gradient).max() > 0.1
    with pytest.raises(ValueError, match="k1.*zero in expectation.*kl_in='reward'"):
        PolicyLossConfig(kl_estimator="k1", beta=0.1)
    PolicyLossConfig(kl_estimator="k1", kl_in="reward", beta=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "ppo"}, "objective is 'ppo': choose one of clip, cispo"),
        ({"ratio_level": "word"}, "ratio_level is 'word'"),
        ({"kl_estimator": "k4"}, "kl_estimator is 'k4'"),
        ({"kl_in": "nowhere"}, "kl_in is 'nowhere'"),
        ({"clip_low": -0.1}, "clip_low is -0.1"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"dual_clip": 0.9}, "dual_clip=0.9"),
        ({"dual_clip": 3.0, "objective": "cispo"}, "dual_clip=3.0 needs objective='clip'"),
        ({"tis_cap": 0.0}, "tis_cap is 0.0"),
        ({"mask_low": 1.0}, "mask_low is 1.0: give a number from 0 to below 1"),
        ({"mask_high": 1.0}, "mask_high is 1.0: give a number above 1"),
        ({"correction_level": "sequence"}, "correction_level='sequence' corrects nothing"),
        ({"correction_level": "word", "tis_cap": 2.0}, "correction_level is 'word'"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        PolicyLossConfig(**fields)


@pytest.mark.parametrize(
    ("missing", "config"),
    [
        ("reference_logprobs", PolicyLossConfig(beta=0.1)),
        ("old_logprobs", PolicyLossConfig(tis_cap=2.0)),
        ("old_logprobs", PolicyLossConfig(mask_high=2.0)),
    ],
)
def test_missing_arrays(missing, config):
    rng = np.random.default_rng(9)
    completions = oracle.random_completions(rng, [3])
    batch, logprobs, _ = pack(completions, weights_for(completions, "sequence_mean"), [[0]], rng)
    del batch[missing]
    with pytest.raises(ValueError, match=f"no {missing}"):
        policy_loss(logprobs, batch, config)


@pytest.mark.parametrize("level", ["token", "sequence", "sequence_product"])
def test_masked_tokens_have_no_gradient_and_are_counted(level):
    config = PolicyLossConfig(mask_low=0.8, mask_high=1.25, correction_level=level)
    rng = np.random.default_rng(11)
    completions = oracle.random_completions(rng, [6, 3, 9, 4, 2], 0.3)
    weights = weights_for(completions, "token_mean")
    batch, logprobs, places = pack(completions, weights, [[0, 1, 2], [3, 4]], rng)
    (_, metrics), gradient = LOSS_AND_GRADIENT(logprobs, batch, config)
    unmasked = LOSS_AND_GRADIENT(logprobs, batch, PolicyLossConfig())[1]
    masked = 0
    for i, place in places.items():
        gaps = np.float64(completions[i].old) - completions[i].behaviour
        over = {"token": gaps, "sequence": gaps.mean(), "sequence_product": gaps.sum()}[level]
        out = np.broadcast_to((np.exp(over) < 0.8) | (np.exp(over) > 1.25), gaps.shape)
        masked += out.sum()
        np.testing.assert_array_equal(gradient[place], np.where(out, 0, unmasked[place]))
    assert 0 < masked < sum(len(c.logprobs) for c in completions)
    assert float(metrics["masked"]) == masked


def test_get_variant_overrides_and_refuses_unknown_names():
    variant = get_variant(
        "dapo", loss={"clip_high": 0.5}, advantage={"std_epsilon": 1e-6}, dynamic_sampling=False
    )
    assert (variant.loss.clip_high, variant.loss.clip_low) == (0.5, 0.2)
    assert (variant.advantage.std_epsilon, variant.aggregation, variant.dynamic_sampling) == (
        1e-6,
        "token_mean",
        False,
    )
    for arguments, message in (
        ({"name": "ppo"}, "unknown RL variant 'ppo': choose one of grpo"),
        ({"name": "grpo", "loss": {"clip": 1}}, "PolicyLossConfig has no field 'clip'"),
        ({"name": "grpo", "aggregation": "mean"}, "unknown aggregation 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            get_variant(**arguments)
