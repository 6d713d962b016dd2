"""Tests that the collapse guard stops collapsed runs and no others, and that it resumes exactly."""

import json
import math

import numpy as np
import pytest

from rl.guards.collapse_guard import CliffRule, CollapseGuard

RULES = {
    "reward": CliffRule(),
    "format": CliffRule(),
    "entropy": CliffRule(keep=0.02, min_height=0.05),
}


def run(guard, first_step=0, **series):
    """Feeds series of equal length; returns (step, reason) of the first stop, or None."""
    for i, values in enumerate(zip(*series.values(), strict=True)):
        reason = guard.update(first_step + i, dict(zip(series, values, strict=True)))
        if reason:
            return first_step + i, reason
    return None


def healthy(steps, seed=0):
    """Reward and format rise noisily, entropy sinks to a thirtieth: as GRPO runs do."""
    rng = np.random.default_rng(seed)
    rise = 1 / (1 + np.exp(-np.linspace(-3, 4, steps)))
    return {
        "reward": np.clip(rise + 0.1 * rng.standard_normal(steps), 0, 1),
        "format": np.clip(rise + 0.2 + 0.05 * rng.standard_normal(steps), 0, 1),
        "entropy": 0.9 * np.exp(-3.4 * np.linspace(0, 1, steps)) * rng.uniform(0.8, 1.2, steps),
    }


@pytest.mark.parametrize("seed", range(5))
def test_healthy_run_goes_on(seed):
    assert run(CollapseGuard(RULES), **healthy(200, seed)) is None


@pytest.mark.parametrize("name", RULES)
def test_cliff_stops_soon_and_names_the_metric(name):
    series = healthy(100)
    series[name] = np.where(np.arange(100) < 60, series[name], 1e-4)
    halflives_to_fall = {"reward": 1, "format": 1, "entropy": math.log2(50)}[name]
    step, reason = run(CollapseGuard(RULES, halflife=5), **series)
    assert 60 < step <= 60 + 5 * halflives_to_fall + 3
    assert reason.startswith(f"{name} collapsed")
    assert f"at step {step}" in reason


def test_reason_tells_from_where_to_where():
    guard = CollapseGuard({"reward": CliffRule(keep=0.5)}, halflife=1e-9, warmup=1, patience=1)
    step, reason = run(guard, first_step=10, reward=[0.2, 0.8, 0.5, 0.25])
    assert step == 13
    assert "from 0.8 at step 11 to 0.25 at step 13" in reason and "less than 50%" in reason


def test_one_bad_batch_or_noise_around_nothing_is_no_collapse():
    assert (
        run(
            CollapseGuard(RULES),
            reward=[0.8] * 30 + [0.0] + [0.8] * 30,
            format=[1.0] * 61,
            entropy=[0.5] * 61,
        )
        is None
    )
    noise = 0.05 * np.abs(np.random.default_rng(1).standard_normal(100))
    assert run(CollapseGuard({"reward": CliffRule()}, halflife=1), reward=noise) is None


def test_bad_batches_must_follow_each_other():
    rewards = [1.0] * 6 + [0.0, 0.0, 1.0] * 6
    guard = lambda: CollapseGuard({"reward": CliffRule()}, halflife=1e-9, patience=3)
    assert run(guard(), reward=rewards) is None
    assert run(guard(), reward=[*rewards, 0.0, 0.0, 0.0])[0] == len(rewards) + 2


def test_height_is_measured_from_the_floor():
    """A reward of -0.9 after 0.5 is a collapse where -1 is the worst; from -0.2 to -0.5 is not."""
    guard = lambda: CollapseGuard({"reward": CliffRule(floor=-1.0)}, halflife=2)
    assert run(guard(), reward=[0.5] * 20 + [-0.9] * 20)
    assert run(guard(), reward=[-0.2] * 20 + [-0.5] * 20) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_stops_at_once(value):
    assert "reward is" in CollapseGuard({"reward": CliffRule()}).update(0, {"reward": value})


@pytest.mark.parametrize("cut", [1, 3, 30, 62])
def test_resume_is_exact(cut):
    series = healthy(100)
    series["format"] = np.where(np.arange(100) < 60, series["format"], 0.0)
    whole = CollapseGuard(RULES)
    expected = run(whole, **series)
    first, second = CollapseGuard(RULES), CollapseGuard(RULES)
    assert run(first, **{name: x[:cut] for name, x in series.items()}) is None
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert run(second, first_step=cut, **{name: x[cut:] for name, x in series.items()}) == expected
    assert second.state_dict() == whole.state_dict()


def test_bad_input():
    with pytest.raises(
        ValueError, match="watches 'format', which is not among the metrics entropy, reward"
    ):
        CollapseGuard(RULES).update(0, {"reward": 1.0, "entropy": 1.0})
    with pytest.raises(
        ValueError, match="watched reward, this one watches entropy, format, reward"
    ):
        CollapseGuard(RULES).load_state_dict(CollapseGuard({"reward": CliffRule()}).state_dict())
    for arguments in ({"keep": 1.5}, {"min_height": 0.0}, {"floor": math.nan}):
        with pytest.raises(ValueError, match="keep must lie between 0 and 1"):
            CliffRule(**arguments)
    with pytest.raises(ValueError, match="warmup >= 1"):
        CollapseGuard(warmup=0)
