"""The source of RL batches: which problems, how many updates, what each batch holds."""

import dataclasses
import types
import zlib

import jax
import numpy as np
import pytest

from reasoning.problem import Problem
from rl.advantages import group_advantages, token_weights
from rl.learner import LearnerConfig, PolicySource
from rl.problem_stream import ProblemStream
from rl.variants import get_variant
from tests.rl import tiny_policy
from tests.rl.tiny_policy import GROUP, LENGTH, PROBLEMS, ROWS, ScriptedSampler

MANY = [Problem("sum", f"question {i}", "") for i in range(10)]
STATE = types.SimpleNamespace(params=None)
SHARED = pytest.mark.parametrize("share", [False, True])


def source(
    sampler, variant="dr_grpo", problems=MANY, seed=0, reference=None, overrides=None, **config
):
    config = {"prompts": 4, "rows": ROWS, "row_length": LENGTH} | config
    return PolicySource(
        tiny_policy.MODEL,
        sampler,
        ProblemStream(problems, seed),
        get_variant(variant, **(overrides or {})),
        LearnerConfig(**config),
        seed=seed,
        reference_params=reference,
    )


def sequences(batch):
    """(tokens, columns) of each packed sequence: the arrays of a batch where it lies."""
    for row in range(len(batch["tokens"])):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            where = batch["segment_ids"][row] == segment
            yield {name: x[row, where] for name, x in batch.items()}


def completions(batch):
    """Sampled tokens -> their weights, advantages and log-probs."""
    found = {}
    for each in sequences(batch):
        trained = each["loss_weights"] > 0
        if not trained.any():  # A prompt that stands before its completions.
            continue
        found[tuple(each["tokens"][trained].tolist())] = {n: x[trained] for n, x in each.items()}
    return found


def varied(problem, seed, g):
    """Informative whatever the problem."""
    return float(g % 2)


# Sampling.


def drawn(policy_source, params):
    batches = policy_source.next(types.SimpleNamespace(params=params))
    texts = {
        problem.question: [c.token_ids for c in group]
        for problem, group in zip(policy_source.last.problems, policy_source.last.completions)
    }
    return texts, batches


def test_steps_draw_different_samples_and_a_resumed_run_the_same():
    """Over the same four problems, so that only the seed can make samples differ."""
    params = tiny_policy.params()
    running = source(tiny_policy.sampler(), problems=PROBLEMS)
    first, _ = drawn(running, params)
    saved = running.state_dict()
    second, batches = drawn(running, params)
    assert first.keys() == second.keys() == {p.question for p in PROBLEMS}
    assert all(first[question] != second[question] for question in first)

    resumed = source(tiny_policy.sampler(), problems=PROBLEMS)
    resumed.load_state_dict(saved)
    again, batches_again = drawn(resumed, params)
    assert again == second
    jax.tree.map(np.testing.assert_array_equal, batches_again, batches)
    assert drawn(source(tiny_policy.sampler(), problems=PROBLEMS, seed=1), params)[0] != first


def test_samples_are_of_the_parameters_that_are_trained():
    params = tiny_policy.params()
    flat = jax.tree.map(lambda x: x * 0, params)
    running = source(tiny_policy.sampler(), problems=PROBLEMS)
    try:
        running.next(types.SimpleNamespace(params=flat))
    finally:
        tiny_policy.sampler().generator.params = params
    logprobs = [c.logprobs for group in running.last.completions for c in group]
    np.testing.assert_allclose(np.concatenate(logprobs), -np.log(264), rtol=1e-5)


# Updates.


@pytest.mark.parametrize("minibatches, epochs", [(1, 1), (2, 1), (1, 3), (4, 2)])
def test_minibatches_and_epochs(minibatches, epochs):
    running = source(ScriptedSampler(varied), "dapo", minibatches=minibatches, epochs=epochs)
    batches = running.next(STATE)
    assert len(batches) == minibatches * epochs and len(running.last.problems) == 4
    # Every epoch goes through the whole rollouts, every completion once.
    rolled = {tuple(c.token_ids) for group in running.last.completions for c in group}
    for epoch in range(epochs):
        parts = [set(completions(b)) for b in batches[epoch * minibatches :][:minibatches]]
        assert set.union(*parts) == rolled and sum(map(len, parts)) == len(rolled)
    # The mean over tokens is that of a minibatch, an optimizer step.
    for batch in batches:
        assert batch["loss_weights"].sum() == pytest.approx(1.0)
        assert {x.shape for x in batch.values()} == {(ROWS, LENGTH)}
    assert running.state_dict() == {"batches_drawn": 1, "problems_taken": 4}


def test_later_updates_are_off_policy():
    """The second minibatch has the ratio to the policy that was sampled, not to the present one."""
    running = source(tiny_policy.sampler(), problems=PROBLEMS, minibatches=2)
    params = tiny_policy.params()
    first, second = (
        batch | {"reference_logprobs": batch["behaviour_logprobs"]}
        for batch in running.next(types.SimpleNamespace(params=params))
    )
    step = tiny_policy.loss_and_gradient(tiny_policy.LOSS)
    (_, before), gradient = step(params, first)
    (_, fresh), _ = step(params, second)
    updated = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    (_, after), _ = step(updated, second)
    for metrics in (before, fresh):
        assert float(metrics["ratio"] / metrics["tokens"]) == pytest.approx(1, abs=1e-4)
        assert float(metrics["old_kl"]) == pytest.approx(0, abs=1e-4)
    assert abs(float(after["ratio_max"]) - 1) > 1e-2 and float(after["old_kl"]) > 1e-3


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo"])
def test_batches_hold_the_variants_advantages_and_weights(name):
    def score(problem, seed, g):
        return float(zlib.crc32(f"{problem.question} {seed} {g}".encode()) % 3)

    sampler = ScriptedSampler(score, group=3)
    running = source(sampler, name, overrides={"loss": {"beta": 0.0}})
    (batch,) = running.next(STATE)
    variant, rollouts = get_variant(name), running.last
    advantages = group_advantages(rollouts.rewards, variant.advantage)
    budget = sampler.max_new_tokens if name == "dr_grpo" else None
    weights = token_weights(rollouts.lengths.ravel(), variant.aggregation, budget)
    expected = {
        tuple(completion.token_ids): (advantages[i, g], weights.reshape(4, 3)[i, g])
        for i, group in enumerate(rollouts.completions)
        for g, completion in enumerate(group)
        # Without advantage there is nothing to learn: left out, but counted in the weights.
        if advantages[i, g] != 0
    }
    assert completions(batch).keys() == expected.keys()
    for tokens, arrays in completions(batch).items():
        np.testing.assert_allclose(arrays["advantages"], expected[tokens][0], rtol=1e-6)
        np.testing.assert_allclose(arrays["loss_weights"], expected[tokens][1], rtol=1e-6)


def test_full_rows_go_to_the_first_microbatches():
    """Microbatch i of n takes rows i, i + n, ...; those without tokens are skipped."""
    running = source(ScriptedSampler(varied), microbatches=4)
    (batch,) = running.next(STATE)
    used = np.array([batch["loss_weights"][i::4].any(axis=1).sum() for i in range(4)])
    rows = used.sum()
    assert 0 < rows <= 8
    assert used.tolist() == [min(4, max(0, rows - 4 * i)) for i in range(4)]


# What the trainer recomputes.


@pytest.fixture(scope="module")
def reference():
    return tiny_policy.params(seed=1)


def on_policy(rollouts, params):
    """tuple of tokens -> log-probs under `params`, by a forward pass for each."""
    return {
        tuple(completion.token_ids): tiny_policy.logprobs(params, ids, completion.token_ids)
        for ids, group in zip(rollouts.prompt_ids, rollouts.completions)
        for completion in group
    }


@SHARED
def test_old_logprobs_are_recomputed_by_the_trainer(share):
    # The sampler's are made wrong, to tell them from the trainer's.
    policy, generate = tiny_policy.sampler(), tiny_policy.sampler().generate

    def off(problems, seed):
        rollouts = generate(problems, seed)
        completions = [
            [dataclasses.replace(c, logprobs=c.logprobs - 0.25) for c in group]
            for group in rollouts.completions
        ]
        return dataclasses.replace(rollouts, completions=completions)

    wrong = types.SimpleNamespace(**vars(policy), generate=off, score=policy.score)
    running = source(
        wrong, problems=PROBLEMS, recompute_old=True, microbatches=2, epochs=2, share_prompts=share
    )
    params = tiny_policy.params()
    batches = running.next(types.SimpleNamespace(params=params))
    expected = on_policy(running.last, params)
    for batch in batches:
        for tokens, arrays in completions(batch).items():
            np.testing.assert_allclose(arrays["old_logprobs"], expected[tokens], atol=1e-4)
            np.testing.assert_allclose(
                arrays["behaviour_logprobs"], expected[tokens] - 0.25, atol=1e-4
            )


@SHARED
def test_kl_in_the_loss_brings_the_references_logprobs(reference, share):
    policy = tiny_policy.sampler()

    def score(rollouts):
        rollouts = policy.score(rollouts)
        rollouts.rewards[0] = 1.0  # No advantage in the first group.
        return rollouts

    half_flat = types.SimpleNamespace(**vars(policy), generate=policy.generate, score=score)
    running = source(
        half_flat, "grpo", problems=PROBLEMS, reference=reference, seed=1,
        overrides={"loss": {"beta": 0.1}}, share_prompts=share,
    )  # fmt: skip
    (batch,) = running.next(types.SimpleNamespace(params=tiny_policy.params()))
    expected, found = on_policy(running.last, reference), completions(batch)
    # Also those without advantage: their KL has a gradient.
    assert found.keys() == expected.keys()
    assert sum((arrays["advantages"] == 0).all() for arrays in found.values()) == GROUP
    for tokens, arrays in found.items():
        np.testing.assert_allclose(arrays["reference_logprobs"], expected[tokens], atol=1e-4)
    np.testing.assert_allclose(
        group_advantages(running.last.rewards, get_variant("grpo").advantage).std(),
        np.std([arrays["advantages"][0] for arrays in found.values()]),
        rtol=1e-5,
    )


@SHARED
def test_kl_in_the_reward_changes_the_advantages(reference, share):
    running = source(
        tiny_policy.sampler(), "rloo", problems=PROBLEMS, reference=reference, seed=1,
        overrides={"loss": {"beta": 0.1}}, share_prompts=share,
    )  # fmt: skip
    (batch,) = running.next(types.SimpleNamespace(params=tiny_policy.params()))
    assert "reference_logprobs" not in batch
    theirs, rollouts = on_policy(running.last, reference), running.last
    penalty = [
        [np.sum(c.logprobs - theirs[tuple(c.token_ids)]) for c in group]
        for group in rollouts.completions
    ]
    penalised = rollouts.rewards - 0.1 * np.array(penalty)
    others = (penalised.sum(1, keepdims=True) - penalised) / (GROUP - 1)
    found = completions(batch)
    for i, group in enumerate(rollouts.completions):
        for g, completion in enumerate(group):
            arrays = found[tuple(completion.token_ids)]
            expected = penalised[i, g] - others[i, g]
            np.testing.assert_allclose(arrays["advantages"], expected, atol=1e-4)


# Dynamic sampling.


def test_dynamic_sampling_fills_the_batch_with_informative_groups():
    """One problem in five has both right and wrong answers."""

    def score(problem, seed, g):
        return float(g % 2) if int(problem.question.split()[1]) % 5 == 0 else 1.0

    sampler = ScriptedSampler(score)
    running = source(sampler, "dapo", max_resamples=20)
    for _ in range(2):
        drawn_before = len(sampler.seeds)
        running.next(STATE)
        assert len(running.last.problems) == 4
        assert (np.ptp(running.last.rewards, axis=1) > 0).all()
        assert running.metrics()["rollout_batches"] == len(sampler.seeds) - drawn_before
        assert 1 < running.metrics()["rollout_batches"] <= 20
        # Reported is what the policy does on problems as they come, not on the chosen ones.
        assert running.last.rewards.mean() == 0.5 < running.metrics()["accuracy"]
    assert len(set(sampler.seeds)) == len(sampler.seeds), "the same seed at two rollouts"
    assert running.state_dict()["batches_drawn"] == len(sampler.seeds)


def test_dynamic_sampling_gives_up_in_the_end():
    sampler = ScriptedSampler(lambda problem, seed, g: 1.0)
    running = source(sampler, "dapo", max_resamples=3)
    (batch,) = running.next(STATE)
    assert len(sampler.seeds) == 4 and len(running.last.problems) == 4
    assert not batch["loss_weights"].any()
    assert running.metrics()["zero_advantage_groups"] == 1.0


def test_dynamic_sampling_goes_by_accuracy_where_there_is_such_a_reward():
    """Groups of wrong answers that differ in format alone are sampled again."""

    class Formatted(ScriptedSampler):
        def score(self, rollouts):
            rollouts.rewards[:, 0] += 0.2
            return rollouts

    sampler = Formatted(lambda problem, seed, g: 0.0)
    running = source(sampler, "dapo", max_resamples=2)
    running.next(STATE)
    assert len(sampler.seeds) == 3
    assert running.metrics()["zero_advantage_groups"] == 0.0


def test_without_dynamic_sampling_there_is_one_draw():
    sampler = ScriptedSampler(lambda problem, seed, g: 1.0)
    source(sampler, "dr_grpo").next(STATE)
    assert len(sampler.seeds) == 1


# Bad settings.


def test_bad_settings():
    with pytest.raises(ValueError, match="prompts=4 cannot be split into 3 equal minibatches"):
        LearnerConfig(prompts=4, rows=8, row_length=8, minibatches=3)
    with pytest.raises(ValueError, match="rows=8 cannot be split into 3 equal microbatches"):
        LearnerConfig(prompts=4, rows=8, row_length=8, microbatches=3)
    with pytest.raises(ValueError, match="coefficient is 0.001 but there is no reference policy"):
        source(ScriptedSampler(varied), "grpo")
    with pytest.raises(ValueError, match="tis_cap=.* needs recompute_old=True"):
        source(ScriptedSampler(varied), overrides={"loss": {"tis_cap": 2.0}})
