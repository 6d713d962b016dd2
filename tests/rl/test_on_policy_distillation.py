"""Tests on-policy distillation: its samples, its loss weights, and that it moves the student."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.sharding import make_mesh
from reasoning.generation.jax_generator import JaxGenerator
from rl.on_policy_distillation import OnPolicySource
from rl.problem_stream import ProblemStream
from rl.rollouts import RolloutSampler
from tests.rl import tiny_policy
from tests.rl.tiny_policy import LENGTH, MODEL, PROBLEMS, ROWS, TOKENIZER
from train.loop import run
from train.objectives.distillation import make_loss
from train.optimizer import make_optimizer
from train.source import PackedSource
from train.state import state_from_params
from train.step import make_train_step

MARK = 250  # The third token of every sequence of the data set.


def rollout_sampler():
    return RolloutSampler(
        JaxGenerator(MODEL, None, TOKENIZER, rows=ROWS),
        lambda question: f"{question}:",
        None,
        group=tiny_policy.GROUP,
        max_new_tokens=tiny_policy.MAX_NEW,
    )


SAMPLER = rollout_sampler()


def data_set():
    tokens = np.array([5, 6, MARK, 7])
    examples = [{"tokens": tokens + [0, i, 0, 0], "loss_weights": np.ones(4)} for i in range(8)]
    return PackedSource(examples, rows=ROWS, row_length=LENGTH, seed=0)


def source(share=1.0, seed=0, **arguments):
    off_policy = data_set() if share < 1 else None
    return OnPolicySource(
        SAMPLER, ProblemStream(PROBLEMS, seed), prompts=4, rows=ROWS, row_length=LENGTH,
        seed=seed, share=share, off_policy=off_policy, **arguments,
    )  # fmt: skip


def state(seed=0):
    return types.SimpleNamespace(params=tiny_policy.params(seed))


def segments(batch):
    for row in range(ROWS):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            where = batch["segment_ids"][row] == segment
            yield {name: x[row, where] for name, x in batch.items()}


def test_completions_are_trained_to_their_last_token_and_prompts_are_not():
    running = source()
    batch = running.next(state())
    assert {name: x.shape for name, x in batch.items()} == {
        name: (ROWS, LENGTH) for name in ("tokens", "positions", "segment_ids", "loss_weights")
    }
    prompts = {tuple(TOKENIZER.encode(f"{problem.question}:")) for problem in PROBLEMS}
    drawn = [
        (tuple(prompt), tuple(completion.token_ids))
        for prompt, group in zip(running.last.prompt_ids, running.last.completions)
        for completion in group
    ]
    found, ended = [], 0
    for each in segments(batch):
        trained = each["loss_weights"] > 0
        prompt, completion = (tuple(each["tokens"][m].tolist()) for m in (~trained, trained))
        assert set(each["loss_weights"].tolist()) == {0.0, 1.0} and not trained[: len(prompt)].any()
        assert prompt in prompts
        found.append((prompt, completion))
        ended += completion[-1] == TOKENIZER.eos_id
    assert sorted(found) == sorted(drawn) and len(found) == 4 * tiny_policy.GROUP
    assert 0 < ended < len(found)
    metrics = running.metrics()
    assert metrics["sampled_tokens"] == batch["loss_weights"].sum()
    assert metrics["sequence_tokens"] == (batch["segment_ids"] > 0).sum()


def test_samples_follow_the_student_and_differ_between_steps():
    running = source()
    first, second = (running.next(state())["tokens"] for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(source().next(state())["tokens"], first)
    assert not np.array_equal(source().next(state(1))["tokens"], first)
    assert not np.array_equal(source(seed=1).next(state())["tokens"], first)


def test_a_share_of_the_batches_is_on_policy():
    running = source(share=0.6)
    on_policy = []
    for _ in range(40):
        batch = running.next(state())
        on_policy.append(not all(each["tokens"][2] == MARK for each in segments(batch)))
        assert running.metrics()["on_policy"] == on_policy[-1]
    assert 0.4 < np.mean(on_policy) < 0.8
    assert not (source(share=0.0).next(state())["tokens"] != data_set().next()["tokens"]).any()


def test_a_resumed_source_goes_on_as_it_would_have():
    running = source(share=0.5)
    for _ in range(5):
        running.next(state())
    resumed = source(share=0.5)
    resumed.load_state_dict(running.state_dict())
    for _ in range(4):
        jax.tree.map(np.testing.assert_array_equal, resumed.next(state()), running.next(state()))


def test_empty_rows_fill_whole_microbatches():
    batch = source(microbatches=4).next(state())
    used = [(batch["segment_ids"][i::4] > 0).any() for i in range(4)]
    assert used == sorted(used, reverse=True) and not all(used)


def test_the_student_becomes_its_teacher():
    """Reverse KL along its own samples falls by the shared loop and step."""
    optimizer = make_optimizer({"learning_rate": 0.01}, MODEL.abstract_params, 30)
    mesh = make_mesh({"data": -1})
    teacher = tiny_policy.params(1)
    step = make_train_step(make_loss(MODEL, MODEL, beta=1.0), optimizer, mesh, constants=teacher)
    start = state_from_params(MODEL, jax.tree.map(jnp.array, tiny_policy.params()), optimizer, mesh)
    losses = []

    class Log:
        def update(self, step, metrics):
            losses.append(metrics["loss"])

        def state_dict(self):
            return {}

    run(start, step, source(), num_steps=30, guards=[Log()], log_every=1)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    np.testing.assert_array_equal(teacher["embedding"], tiny_policy.params(1)["embedding"])


@pytest.mark.parametrize(
    "share, message",
    [(1.5, "share=1.5 of on-policy batches: give"), (0.5, "give off_policy data")],
)
def test_bad_arguments(share, message):
    with pytest.raises(ValueError, match=message):
        OnPolicySource(
            SAMPLER, ProblemStream(PROBLEMS, 0), prompts=4, rows=ROWS, row_length=LENGTH,
            seed=0, share=share,
        )  # fmt: skip
