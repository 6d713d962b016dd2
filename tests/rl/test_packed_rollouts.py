"""How rollouts are packed: what is trained on, and that packing changes nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from rl.packed_rollouts import pack_rollouts, rows_needed
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


# With shared prompts, rows that hold several completions of a problem, and some that do not.
SHAPES = pytest.mark.parametrize(
    ("rows", "length", "share"),
    [(ROWS, LENGTH, False), (ROWS, LENGTH, True), (8, 2 * LENGTH, True)],
)


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


def assert_same_gradient(one, other, loss=tiny_policy.LOSS):
    outcomes = [
        tiny_policy.loss_and_gradient(loss)(tiny_policy.params(), with_reference(batch))
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


@SHAPES
def test_packed_rows_have_the_gradient_of_sequences_apart(
    rollouts, advantages, weights, rows, length, share
):
    packed, _ = pack_rollouts(rollouts, advantages, weights, rows, length, share)
    assert np.count_nonzero(packed["segment_ids"].any(1)) < 0.8 * ROWS, "nothing was packed"
    assert_same_gradient(packed, apart(rollouts, advantages, weights))


def test_ratios_of_sequences_do_not_mix_completions_that_share_a_prompt(
    rollouts, advantages, weights
):
    """With behaviour log-probs that make every ratio another number."""
    loss = dataclasses.replace(tiny_policy.LOSS, ratio_level="sequence")
    off = [
        [dataclasses.replace(c, logprobs=c.logprobs - 0.05 * g) for g, c in enumerate(group)]
        for group in rollouts.completions
    ]
    moved = dataclasses.replace(rollouts, completions=off)
    packed, _ = pack_rollouts(moved, advantages, weights, 8, 2 * LENGTH, share_prompts=True)
    assert_same_gradient(packed, apart(moved, advantages, weights), loss)


@SHAPES
def test_every_completion_is_trained_on_and_no_prompt_is(
    rollouts, advantages, weights, rows, length, share
):
    batch, spans = pack_rollouts(rollouts, advantages, weights, rows, length, share)
    trained = np.zeros((rows, length), bool)
    kept = [(i, g) for i in range(len(PROBLEMS)) for g in range(GROUP)]
    finishes = set()
    for (i, g), (row, columns) in zip(kept, spans, strict=True):
        completion, prompt = rollouts.completions[i][g], rollouts.prompt_ids[i]
        assert batch["tokens"][row, columns].tolist() == completion.token_ids
        assert seen_before(batch, row, columns.start) == prompt
        np.testing.assert_array_equal(
            batch["positions"][row, columns], len(prompt) + np.arange(len(completion.token_ids))
        )
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


def seen_before(batch, row, column):
    """The tokens before a column that its token sees, in the order of their positions."""
    own = batch["segment_ids"][row, column]
    also = batch["prefix_ids"][row, column] if "prefix_ids" in batch else own
    columns = [c for c in range(column) if batch["segment_ids"][row, c] in (own, also)]
    assert batch["positions"][row, columns].tolist() == list(range(len(columns)))
    return batch["tokens"][row, columns].tolist()


@SHAPES
def test_the_trainer_agrees_with_the_sampler(rollouts, advantages, weights, rows, length, share):
    """On the first step the ratio is 1, for every token and at another temperature than 1."""
    batch, _ = pack_rollouts(rollouts, advantages, weights, rows, length, share)
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


@SHAPES
def test_completions_without_weight_are_left_out_and_not_missed(
    rollouts, advantages, weights, rows, length, share
):
    silent = np.random.default_rng(2).random(weights.shape) < 0.5
    fewer, spans = pack_rollouts(
        rollouts, advantages, np.where(silent, 0.0, weights), rows, length, share
    )
    assert len(spans) == (~silent).sum()
    tokens = sum(
        len(rollouts.prompt_ids[i]) + rollouts.lengths[i, g] for i, g in np.argwhere(~silent)
    )
    laid_out = np.count_nonzero(fewer["segment_ids"])
    assert laid_out <= tokens if share else laid_out == tokens
    # The same sequences in their rows, but with no weight on them.
    assert_same_gradient(fewer, apart(rollouts, advantages, np.where(silent, 0.0, weights)))


@SHAPES
def test_no_weight_at_all_is_an_empty_batch(rollouts, advantages, rows, length, share):
    shape = rows, length, share
    full, _ = pack_rollouts(rollouts, advantages, np.ones_like(advantages), *shape)
    empty, spans = pack_rollouts(rollouts, advantages, np.zeros_like(advantages), *shape)
    assert spans == [] and not any(x.any() for x in empty.values())
    described = {name: (x.shape, x.dtype) for name, x in full.items()}
    assert {name: (x.shape, x.dtype) for name, x in empty.items()} == described


@pytest.mark.parametrize("share", [False, True])
def test_what_does_not_fit_is_an_error(rollouts, advantages, weights, share):
    with pytest.raises(ValueError, match="rows are needed but num_rows=2"):
        pack_rollouts(rollouts, advantages, weights, 2, LENGTH, share)
    with pytest.raises(ValueError, match="longer than row length 6"):
        pack_rollouts(rollouts, advantages, weights, ROWS, 6, share)


def prompts_of(rollouts, *lengths):
    """The same completions behind other prompts."""
    return dataclasses.replace(rollouts, prompt_ids=[list(range(1, n + 1)) for n in lengths])


def test_a_shared_prompt_is_laid_out_once(rollouts, advantages, weights):
    others = prompts_of(rollouts, 1, 2, 9, 30)
    batch, spans = pack_rollouts(others, advantages, weights, 4, 80, share_prompts=True)
    for i, prompt in enumerate(others.prompt_ids):
        of_prompt = spans[i * GROUP : (i + 1) * GROUP]
        assert len({row for row, _ in of_prompt}) == 1
        for row, columns in of_prompt:
            assert seen_before(batch, row, columns.start) == prompt
    prompts = sum(len(ids) - 1 for ids in others.prompt_ids)
    last_tokens = len(PROBLEMS) * GROUP
    assert np.count_nonzero(batch["segment_ids"]) == prompts + last_tokens + rollouts.lengths.sum()
    # Every segment is one stretch of a row, and they are numbered from 1, as the losses need.
    for row in batch["segment_ids"]:
        ids = row[np.flatnonzero(np.diff(row, prepend=0))]
        assert ids[ids > 0].tolist() == list(range(1, row.max() + 1))


@pytest.mark.parametrize(("length", "prompt"), [(24, 6), (24, 16), (40, 1), (61, 8)])
def test_rows_for_the_longest_completions_are_enough_and_not_too_many(
    rollouts, advantages, weights, length, prompt
):
    cut = np.array([[c.finish == "length" for c in group] for group in rollouts.completions])
    i, g = map(int, np.argwhere(cut)[0])
    longest = dataclasses.replace(
        prompts_of(rollouts, *[prompt] * len(PROBLEMS)),
        completions=[[rollouts.completions[i][g]] * GROUP for _ in PROBLEMS],
    )
    rows = len(PROBLEMS) * rows_needed(prompt, MAX_NEW, GROUP, length)
    pack_rollouts(longest, advantages, weights, rows, length, share_prompts=True)
    if length < 2 * (prompt + MAX_NEW):  # No row holds completions of two prompts.
        with pytest.raises(ValueError, match="rows are needed"):
            pack_rollouts(longest, advantages, weights, rows - 1, length, share_prompts=True)


@pytest.mark.parametrize("unknown", [{"logprobs": None}, {"token_ids": [-1, 3]}])
def test_completions_without_logprobs_or_ids_are_refused(rollouts, advantages, weights, unknown):
    """Such as a server gives."""
    completions = [list(group) for group in rollouts.completions]
    completions[1][2] = dataclasses.replace(completions[1][2], **unknown)
    changed = dataclasses.replace(rollouts, completions=completions)
    with pytest.raises(ValueError, match="no log-probabilities or token ids, which RL needs"):
        pack_rollouts(changed, advantages, weights, ROWS, LENGTH)
