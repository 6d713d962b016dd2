"""Rollouts and how they are packed: what is trained on, and that packing changes nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from models.decoding.sampling import SamplingParams
from rl.rollouts import RolloutSampler, pack_rollouts
from tests.rl import tiny_policy
from tests.rl.tiny_policy import GROUP, LENGTH, MAX_NEW, PROBLEMS, ROWS, TOKENIZER


@pytest.fixture(scope="module")
def rollouts():
    return tiny_policy.rollouts()


@pytest.fixture(scope="module")
def weights(rollouts):
    rng = np.random.default_rng(0)
    return rng.uniform(0.5, 1.5, rollouts.rewards.shape) / rollouts.lengths.sum()


@pytest.fixture(scope="module")
def advantages(rollouts):
    return np.random.default_rng(1).normal(size=rollouts.rewards.shape)


def with_reference(batch):
    """A reference that differs from the policy, so that the KL term has a gradient."""
    return batch | {"reference_logprobs": batch["behaviour_logprobs"] - 0.3}


def apart(rollouts, advantages, weights):
    """One sequence a row, written out token by token."""
    zeros = lambda dtype: np.zeros((ROWS, LENGTH), dtype)  # noqa: E731
    batch = {name: zeros(np.int32) for name in ("tokens", "positions", "segment_ids")}
    batch |= {n: zeros(np.float32) for n in ("loss_weights", "advantages", "behaviour_logprobs")}
    row = 0
    for i, group in enumerate(rollouts.completions):
        for g, completion in enumerate(group):
            prompt = rollouts.prompt_ids[i]
            for t, token in enumerate([*prompt, *completion.token_ids]):
                batch["tokens"][row, t] = token
                batch["positions"][row, t] = t
                batch["segment_ids"][row, t] = 1
                if t >= len(prompt):
                    batch["loss_weights"][row, t] = weights[i, g]
                    batch["advantages"][row, t] = advantages[i, g]
                    batch["behaviour_logprobs"][row, t] = completion.logprobs[t - len(prompt)]
            row += 1
    return batch


def assert_same_gradient(one, other):
    outcomes = [
        tiny_policy.loss_and_gradient(tiny_policy.LOSS)(tiny_policy.params(), with_reference(batch))
        for batch in (one, other)
    ]
    (loss, _), gradient = outcomes[0]
    assert float(loss) == pytest.approx(float(outcomes[1][0][0]), rel=1e-5)
    largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient))
    assert largest > 1e-2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest),
        gradient,
        outcomes[1][1],
    )


def test_packed_rows_have_the_gradient_of_sequences_apart(rollouts, advantages, weights):
    packed, _ = pack_rollouts(rollouts, advantages, weights, ROWS, LENGTH)
    assert np.count_nonzero(packed["segment_ids"].any(1)) < 0.8 * ROWS, "nothing was packed"
    assert_same_gradient(packed, apart(rollouts, advantages, weights))


def test_every_completion_is_trained_on_and_no_prompt_is(rollouts, advantages, weights):
    batch, spans = pack_rollouts(rollouts, advantages, weights, ROWS, LENGTH)
    trained = np.zeros((ROWS, LENGTH), bool)
    kept = [(i, g) for i in range(len(PROBLEMS)) for g in range(GROUP)]
    finishes = set()
    for (i, g), (row, columns) in zip(kept, spans, strict=True):
        completion, prompt = rollouts.completions[i][g], rollouts.prompt_ids[i]
        assert batch["tokens"][row, columns].tolist() == completion.token_ids
        before = slice(columns.start - len(prompt), columns.start)
        assert batch["tokens"][row, before].tolist() == prompt
        assert len(set(batch["segment_ids"][row, before.start : columns.stop])) == 1
        np.testing.assert_allclose(batch["loss_weights"][row, columns], weights[i, g])
        np.testing.assert_allclose(batch["advantages"][row, columns], advantages[i, g], rtol=1e-6)
        np.testing.assert_array_equal(
            batch["behaviour_logprobs"][row, columns], completion.logprobs
        )
        finishes.add(completion.finish)
        # Where the policy stopped by itself, it is trained to.
        ends = batch["tokens"][row, columns.stop - 1] == TOKENIZER.eos_id
        assert ends == (completion.finish == "stop")
        trained[row, columns] = True
    assert finishes == {"stop", "length"}
    np.testing.assert_array_equal(batch["loss_weights"] > 0, trained)
    assert trained.sum() == rollouts.lengths.sum()


def test_the_trainer_agrees_with_the_sampler(rollouts, advantages, weights):
    """On the first step the ratio is 1, for every token and at another temperature than 1."""
    batch, spans = pack_rollouts(rollouts, advantages, weights, ROWS, LENGTH)
    (_, metrics), _ = tiny_policy.loss_and_gradient(tiny_policy.LOSS)(
        tiny_policy.params(), with_reference(batch)
    )
    tokens = rollouts.lengths.sum()
    assert metrics["tokens"] == tokens
    assert float(metrics["ratio"]) / tokens == pytest.approx(1.0, abs=1e-4)
    assert float(metrics["ratio_max"]) == pytest.approx(1.0, abs=1e-4)
    assert metrics["clip_high"] == metrics["clip_low"] == 0
    for group, ids in zip(rollouts.completions, rollouts.prompt_ids):
        for completion in group:
            np.testing.assert_allclose(
                completion.logprobs,
                tiny_policy.logprobs(tiny_policy.params(), ids, completion.token_ids),
                atol=1e-4,
            )


def test_completions_without_weight_are_left_out_and_not_missed(rollouts, advantages, weights):
    silent = np.random.default_rng(2).random(weights.shape) < 0.5
    fewer, spans = pack_rollouts(rollouts, advantages, np.where(silent, 0.0, weights), ROWS, LENGTH)
    assert len(spans) == (~silent).sum()
    tokens = sum(
        len(rollouts.prompt_ids[i]) + rollouts.lengths[i, g] for i, g in np.argwhere(~silent)
    )
    assert np.count_nonzero(fewer["segment_ids"]) == tokens
    # The same sequences in their rows, but with no weight on them.
    assert_same_gradient(fewer, apart(rollouts, advantages, np.where(silent, 0.0, weights)))


def test_no_weight_at_all_is_an_empty_batch(rollouts, advantages):
    full, _ = pack_rollouts(rollouts, advantages, np.ones_like(advantages), ROWS, LENGTH)
    empty, spans = pack_rollouts(rollouts, advantages, np.zeros_like(advantages), ROWS, LENGTH)
    assert spans == [] and not any(x.any() for x in empty.values())
    described = {name: (x.shape, x.dtype) for name, x in full.items()}
    assert {name: (x.shape, x.dtype) for name, x in empty.items()} == described


def test_what_does_not_fit_is_an_error(rollouts, advantages, weights):
    with pytest.raises(ValueError, match="rows are needed but num_rows=2"):
        pack_rollouts(rollouts, advantages, weights, 2, LENGTH)
    with pytest.raises(ValueError, match="longer than row length 6"):
        pack_rollouts(rollouts, advantages, weights, ROWS, 6)


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
    with pytest.raises(ValueError, match="set temperature above 0"):
        RolloutSampler(
            None, str, None, group=2, max_new_tokens=4, sampling=SamplingParams(temperature=0.0)
        )


@pytest.mark.parametrize("unknown", [{"logprobs": None}, {"token_ids": [-1, 3]}])
def test_completions_without_logprobs_or_ids_are_refused(rollouts, advantages, weights, unknown):
    """Such as a server gives."""
    completions = [list(group) for group in rollouts.completions]
    completions[1][2] = dataclasses.replace(completions[1][2], **unknown)
    changed = dataclasses.replace(rollouts, completions=completions)
    with pytest.raises(ValueError, match="no log-probabilities or token ids, which RL needs"):
        pack_rollouts(changed, advantages, weights, ROWS, LENGTH)
