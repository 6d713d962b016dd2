"""Tests advantages against the papers' formulas, loss weights against means, and KL in the
reward.
"""

import itertools
import math
import statistics

import numpy as np
import pytest

from rl.advantages import (
    AdvantageConfig,
    group_advantages,
    informative_groups,
    subtract_kl,
    token_weights,
    zero_advantage_groups,
)

REWARDS = np.random.default_rng(0).standard_normal((3, 5))


@pytest.mark.parametrize(
    ("unbiased", "stdev"), [(True, statistics.stdev), (False, statistics.pstdev)]
)
@pytest.mark.parametrize("epsilon", [1e-4, 1e-6, 0.5])
def test_grpo(unbiased, stdev, epsilon):
    advantages = group_advantages(
        REWARDS, AdvantageConfig("grpo", unbiased_std=unbiased, std_epsilon=epsilon)
    )
    for row, result in zip(REWARDS.tolist(), advantages, strict=True):
        expected = [(r - statistics.fmean(row)) / (stdev(row) + epsilon) for r in row]
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_dr_grpo_and_rloo():
    dr_grpo, rloo = (
        group_advantages(REWARDS, AdvantageConfig(name)) for name in ("dr_grpo", "rloo")
    )
    for p, row in enumerate(REWARDS.tolist()):
        for i, reward in enumerate(row):
            np.testing.assert_allclose(
                dr_grpo[p, i], reward - statistics.fmean(row), rtol=1e-5, atol=1e-6
            )
            others = row[:i] + row[i + 1 :]
            np.testing.assert_allclose(
                rloo[p, i], reward - statistics.fmean(others), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("group", [2, 3, 5])
def test_maxrl_climbs_the_truncated_likelihood(group):
    """Its expected gradient is that of -sum_k (1 - p)^k / k for k < group, over all outcomes.

    The policy draws right with probability p = sigmoid(z), so d log pi / dz is 1 - p or -p.
    """
    p = 0.3
    expected = 0.0
    for outcome in itertools.product((0.0, 1.0), repeat=group):
        chance = math.prod(p if right else 1 - p for right in outcome)
        if len(set(outcome)) == 1:
            advantages = np.zeros(group)
        else:
            advantages = group_advantages([outcome], AdvantageConfig("maxrl"))[0]
        scores = [1 - p if right else -p for right in outcome]
        expected += chance * np.mean(advantages * scores)
    slope = p * (1 - p)  # dp / dz
    truth = sum((1 - p) ** (k - 1) for k in range(1, group)) * slope
    assert expected == pytest.approx(truth, rel=1e-5)


def test_maxrl_counts_rare_successes_most_and_refuses_penalties():
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0], [0.5, 0.25, 0, 0.25]])
    found = group_advantages(rewards, AdvantageConfig("maxrl"))
    expected = [[3, -1, -1, -1], [1 / 3, 1 / 3, 1 / 3, -1], [1, 0, -1, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="a reward is -0.5, but the estimator maxrl divides"):
        group_advantages([[1.0, -0.5]], AdvantageConfig("maxrl"))


@pytest.mark.parametrize("estimator", ["grpo", "dr_grpo", "rloo", "maxrl"])
def test_equal_rewards_teach_exactly_nothing(estimator):
    # 0.1 * 3 and 0.3 differ in the last bit: rounding must not become an advantage of +-1.
    rewards = np.array([[0.3, 0.1 * 3, 0.3, 0.3], [0.0, 0.0, 1.0, 0.0], [1.0] * 4])
    assert np.ptp(rewards[0]) > 0
    advantages = group_advantages(rewards, AdvantageConfig(estimator, std_epsilon=0.0))
    assert not advantages[[0, 2]].any()
    assert advantages[1, 2] > 0 > advantages[1, 0]
    np.testing.assert_array_equal(zero_advantage_groups(rewards), [True, False, True])


def test_advantages_do_not_depend_on_the_other_prompts():
    config = AdvantageConfig("grpo")
    np.testing.assert_array_equal(
        group_advantages(REWARDS, config)[1:2], group_advantages(REWARDS[1:2], config)
    )


def test_dynamic_sampling_keeps_groups_neither_all_right_nor_all_wrong():
    accuracy = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(informative_groups(accuracy), [1, 3, 4])
    np.testing.assert_array_equal(informative_groups(accuracy, limit=2), [1, 3])


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([[1.0]], "at least 2 completions"),
        ([1.0, 2.0], "expected .prompts, group"),
        ([[1.0, 2.0], [0.0, math.nan]], "completion 1 of prompt 1 is nan"),
    ],
)
def test_bad_rewards(rewards, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, AdvantageConfig())


def test_unknown_estimator():
    with pytest.raises(ValueError, match="unknown advantage estimator 'gae'"):
        AdvantageConfig("gae")


def test_token_weights_turn_sums_into_the_named_means():
    rng = np.random.default_rng(1)
    lengths = [3, 1, 6]
    losses = [rng.standard_normal(n) for n in lengths]
    expected = {
        "sequence_mean": np.mean([x.mean() for x in losses]),
        "token_mean": np.concatenate(losses).mean(),
        "constant": np.sum([x.sum() / 8 for x in losses]) / 3,
    }
    for aggregation, value in expected.items():
        weights = token_weights(lengths, aggregation, 8 if aggregation == "constant" else None)
        total = sum((w * x).sum() for w, x in zip(weights, losses, strict=True))
        np.testing.assert_allclose(total, value, rtol=1e-6)


def test_a_completion_left_out_weighs_nothing_but_counts():
    np.testing.assert_allclose(token_weights([2, 0], "sequence_mean"), [1 / 4, 0])
    np.testing.assert_allclose(token_weights([2, 0], "token_mean"), [1 / 2, 0])
    np.testing.assert_allclose(token_weights([2, 0], "constant", 10), [1 / 20, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3, 1], "mean"), "unknown aggregation 'mean'"),
        (([3, 1], "constant"), "max_tokens=None"),
        (([3, 1], "token_mean", 8), "max_tokens=8"),
        (([9, 1], "constant", 8), "9 tokens, more than max_tokens=8"),
        (([0, 0], "token_mean"), "not all zero"),
        (([-1, 2], "token_mean"), "lengths must be"),
    ],
)
def test_bad_token_weights(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_weights(*arguments)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_in_the_reward(estimator):
    rng = np.random.default_rng(2)
    logprobs, reference = -rng.exponential(1.0, (2, 6, 4))
    mask = np.arange(4) < rng.integers(1, 5, 6)[:, None]
    rewards = rng.standard_normal((2, 3))
    expected = rewards.copy()
    for i in range(6):
        for t in range(4):
            if mask[i, t]:
                difference = logprobs[i, t] - reference[i, t]
                kl = {
                    "k1": difference,
                    "k2": difference**2 / 2,
                    "k3": math.exp(-difference) - 1 + difference,
                }[estimator]
                expected[i // 3, i % 3] -= 0.3 * kl
            else:
                logprobs[i, t], reference[i, t] = np.nan, -np.inf
    np.testing.assert_allclose(
        subtract_kl(rewards, logprobs, reference, mask, 0.3, estimator), expected
    )


def test_expected_value_of_each_kl_estimator():
    """On all tokens of a softmax, by probability: k1 and k3 are unbiased, k2 is close nearby."""
    policy, reference = np.log([[0.5, 0.3, 0.2], [0.45, 0.33, 0.22]])
    kl = np.sum(np.exp(policy) * (policy - reference))
    ones = np.ones((3, 1), bool)
    for estimator, tolerance in (("k1", 1e-12), ("k2", 0.05 * kl), ("k3", 1e-12)):
        penalised = subtract_kl(
            np.zeros((1, 3)), policy[:, None], reference[:, None], ones, 1.0, estimator
        )
        assert abs(-penalised[0] @ np.exp(policy) - kl) <= tolerance
