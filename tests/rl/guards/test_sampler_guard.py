"""Tests the guard that stops RL if the sampler and the trainer differ."""

import pytest

from rl.guards.sampler_guard import SamplerGuard


@pytest.mark.parametrize(
    "kl, gap, stops",
    [(1e-8, 1e-4, False), (1e-3, 1e-4, True), (1e-6, 1.5, True), (float("nan"), 0.0, True)],
)
def test_a_first_update_off_policy_stops_the_run(kl, gap, stops):
    metrics = {"first_sampler_kl": kl, "first_sampler_gap_max": gap}
    reason = SamplerGuard("float32").update(7, metrics)
    assert bool(reason) == stops
    if stops:
        assert reason.startswith("step 7: the sampler and the trainer disagree")
