"""Tests when the reference policy is renewed, which one is used, and how a killed run resumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.manifest import Damaged
from rl.learner import LearnerConfig, PolicySource
from rl.problem_stream import ProblemStream
from rl.reference import ReferenceRenewal
from rl.variants import get_variant
from tests.rl import tiny_policy
from tests.rl.tiny_policy import GROUP, LENGTH, PROBLEMS, ROWS
from train.state import TrainState

FIRST = {"w": jnp.full(3, -1.0)}


def params_at(step):
    return {"w": jnp.full(3, float(step))}


def run(renewal, steps, reference=FIRST):
    """Step -> which parameters the reference was, over rollouts at these steps."""
    used = {}
    for step in steps:
        reference = renewal.renewed(reference, params_at(step), step)
        used[step] = float(reference["w"][0])
    return used


def test_it_becomes_the_current_policy_every_so_many_steps(tmp_path):
    used = run(ReferenceRenewal(6, tmp_path, 100), range(0, 20, 2))
    assert used == {0: -1, 2: -1, 4: -1, 6: 6, 8: 6, 10: 6, 12: 12, 14: 12, 16: 12, 18: 18}
    # Where rollouts give several updates, at the first one that is due.
    used = run(ReferenceRenewal(6, tmp_path / "other", 100), range(0, 20, 4))
    assert used == {0: -1, 4: -1, 8: 8, 12: 12, 16: 12}


def test_it_is_a_copy(tmp_path):
    params = params_at(4)
    kept = ReferenceRenewal(4, tmp_path, 100).renewed(FIRST, params, 4)
    params["w"].delete()  # as a train step does, which reuses the buffers
    np.testing.assert_array_equal(kept["w"], 4.0)


@pytest.mark.parametrize("killed_at", range(2, 30, 2))
def test_a_resumed_run_has_the_reference_that_it_had(tmp_path, killed_at):
    """Killed anywhere and resumed from the older of two checkpoints, four steps apart."""
    whole = run(ReferenceRenewal(6, tmp_path / "whole", 8), range(0, 40, 2))
    first = ReferenceRenewal(6, tmp_path / "run", 8)
    saved, reference = {}, FIRST
    for step in range(0, killed_at + 2, 2):
        reference = first.renewed(reference, params_at(step), step)
        saved[step] = first.state_dict()
    back = max(0, killed_at // 4 * 4 - 4)
    second = ReferenceRenewal(6, tmp_path / "run", 8)
    reference = second.restored(FIRST, saved[back])
    assert float(reference["w"][0]) == whole[back]
    resumed = run(second, range(back, 40, 2), reference)
    assert resumed == {step: whole[step] for step in resumed}
    # Copies that no checkpoint needs are gone.
    assert len(list((tmp_path / "run").iterdir())) <= 4


def test_it_keeps_the_sharding(tmp_path):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    first = ReferenceRenewal(1, tmp_path, 9)
    first.renewed(FIRST, params_at(1), 1)
    back = ReferenceRenewal(1, tmp_path, 9).restored(FIRST, first.state_dict())
    assert back["w"].sharding.is_equivalent_to(sharding, 1)
    np.testing.assert_array_equal(back["w"], 1.0)


def test_faults_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="reference_every=0: give at least 1 step"):
        ReferenceRenewal(0, tmp_path, 1)
    with pytest.raises(Damaged, match="its reference policy .*/7 is gone"):
        ReferenceRenewal(7, tmp_path, 1).restored(FIRST, {"reference_step": 7})


def test_rollouts_are_measured_against_the_renewed_reference(tmp_path):
    """On-policy, so the log-probabilities of a reference that was just renewed are the policy's."""

    def source():
        return PolicySource(
            tiny_policy.MODEL,
            tiny_policy.sampler(),
            ProblemStream(PROBLEMS, 0),
            get_variant("grpo"),
            LearnerConfig(len(PROBLEMS), ROWS, LENGTH, recompute_old=True),
            seed=0,
            reference_params=jax.tree.map(jnp.zeros_like, tiny_policy.params()),
            renewal=ReferenceRenewal(2, tmp_path, 9),
        )

    def differences(running, step):
        state = TrainState(jnp.asarray(step), tiny_policy.params(), None)
        [batch] = running.next(state)
        differ = np.abs(batch["reference_logprobs"] - batch["old_logprobs"])
        return differ[batch["loss_weights"] > 0].max()

    running = source()
    assert differences(running, 0) > 0.1 and differences(running, 1) > 0.1
    assert differences(running, 2) < 1e-5 and GROUP > 1
    resumed = source()
    resumed.load_state_dict(running.state_dict())
    assert differences(resumed, 3) < 1e-5
