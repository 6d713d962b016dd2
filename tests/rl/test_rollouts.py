"""Rollouts: their rewards, their metrics, and how parts of them are put together."""

import dataclasses

import numpy as np
import pytest

from models.decoding.sampling import SamplingParams
from rl.rollouts import RolloutSampler
from tests.rl import tiny_policy
from tests.rl.tiny_policy import GROUP, MAX_NEW, PROBLEMS, TOKENIZER


@pytest.fixture(scope="module")
def rollouts():
    return tiny_policy.rollouts()


def test_rollouts_have_their_rewards_and_reasons(rollouts):
    assert rollouts.rewards.shape == rollouts.lengths.shape == (4, GROUP)
    for i in range(4):
        assert rollouts.prompts[i] == f"{PROBLEMS[i].question}:"
        assert TOKENIZER.decode(rollouts.prompt_ids[i]) == rollouts.prompts[i]
        for g, completion in enumerate(rollouts.completions[i]):
            assert rollouts.lengths[i, g] == len(completion.token_ids) <= MAX_NEW
            # Of this completion, the end-of-sequence token counted, and in this place.
            assert rollouts.by_reward["accuracy"][i, g] == rollouts.lengths[i, g] % 2
            assert rollouts.reasons["style"][i][g] == completion.text
    total = rollouts.by_reward["accuracy"] + 0.5 * rollouts.by_reward["style"]
    np.testing.assert_allclose(rollouts.rewards, total)


def test_metrics_of_rollouts(rollouts):
    metrics = rollouts.metrics()
    cut = [c.finish == "length" for group in rollouts.completions for c in group]
    assert 0 < metrics["truncated"] == sum(cut) / len(cut) < 1
    assert metrics["reward"] == pytest.approx(rollouts.rewards.mean())
    assert metrics["accuracy"] == pytest.approx((rollouts.lengths % 2).mean())
    assert metrics["response_tokens"] == pytest.approx(rollouts.lengths.mean())
    assert metrics["response_tokens_max"] == MAX_NEW


def test_select_and_join_keep_rows_together(rollouts):
    parts = rollouts.select([2, 0]).join(rollouts.select([3]))
    for to, source in enumerate((2, 0, 3)):
        for field in ("problems", "prompts", "prompt_ids", "completions"):
            assert getattr(parts, field)[to] is getattr(rollouts, field)[source]
        for name, column in parts.by_reward.items():
            np.testing.assert_array_equal(column[to], rollouts.by_reward[name][source])
            assert parts.reasons[name][to] == rollouts.reasons[name][source]
        np.testing.assert_array_equal(parts.rewards[to], rollouts.rewards[source])
    assert len(parts.problems) == len(parts.rewards) == 3
    assert {f.name for f in dataclasses.fields(parts)} == set(vars(parts))


def test_greedy_rollouts_are_refused():
    with pytest.raises(ValueError, match="RL needs different ones: set it above 0"):
        RolloutSampler(
            None, str, None, group=2, max_new_tokens=4, sampling=SamplingParams(temperature=0.0)
        )
