"""The packed source: whole epochs, any number of times, from any point."""

import json

import numpy as np
import pytest

from train.source import PackedSource


def examples(count=50, length=8):
    """Example i is the number i, `length` times or fewer."""
    rng = np.random.default_rng(0)
    return [
        {"tokens": np.full(n, i + 1), "loss_weights": np.ones(n)}
        for i, n in enumerate(rng.integers(2, length + 1, count))
    ]


def source(**changes):
    arguments = dict(rows=3, row_length=16, seed=0, window=20) | changes
    return PackedSource(arguments.pop("examples", examples()), **arguments)


def drain(source):
    batches = []
    while True:
        try:
            batches.append(source.next())
        except StopIteration:
            return batches


def contents(batches):
    """How often each example occurs, by its number."""
    starts = [b["tokens"][(b["positions"] == 0) & (b["segment_ids"] > 0)] for b in batches]
    return np.bincount(np.concatenate(starts), minlength=51)[1:]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("epochs", [1, 3])
def test_every_epoch_holds_every_example_once(packed, epochs):
    this = source(num_epochs=epochs, packed=packed)
    count = this.count_batches()
    batches = drain(this)
    np.testing.assert_array_equal(contents(batches), epochs)
    assert len(batches) == count and all(b["tokens"].shape == (3, 16) for b in batches)
    if not packed:
        assert max(b["segment_ids"].max() for b in batches) == 1


def test_epochs_and_seeds_differ_and_repeat():
    def tokens(**changes):
        return np.concatenate([b["tokens"] for b in drain(source(num_epochs=1, **changes))])

    np.testing.assert_array_equal(tokens(), tokens())
    assert not np.array_equal(tokens(), tokens(seed=1))
    # One example a row and 60 rows an epoch, so that both epochs start with a batch.
    rows = [b["tokens"] for b in drain(source(examples=examples(60), packed=False, num_epochs=2))]
    assert not np.array_equal(rows[:20], rows[20:])
    in_order = source(packed=False, shuffle=False, num_epochs=1, examples=examples(6))
    np.testing.assert_array_equal(in_order.next()["tokens"][:, 0], [1, 2, 3])


@pytest.mark.parametrize("taken", [0, 1, 4, 7, 11, 16])
def test_resumes_from_its_state(taken):
    first = source(num_epochs=3)
    for _ in range(taken):
        first.next()
    state = json.loads(json.dumps(first.state_dict()))
    second = source(num_epochs=3)
    second.load_state_dict(state)
    rest = drain(first), drain(second)
    assert len(rest[0]) == len(rest[1]) > 0
    for a, b in zip(*rest):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_the_last_batch_is_filled_with_empty_rows():
    batches = drain(source(rows=7, num_epochs=1))
    assert batches[-1]["tokens"].shape == (7, 16) and not batches[-1]["segment_ids"][-1].any()


def test_policies_for_long_examples():
    some = examples(10) + [{"tokens": np.full(30, 99), "loss_weights": np.ones(30)}]
    with pytest.raises(
        ValueError,
        match="example 10 has 30 tokens, longer than row length 16 .1 of 11 are.:"
        " raise row_length,",
    ):
        source(examples=some)
    counts = {}
    for policy in ("truncate", "drop"):
        this = source(examples=some, too_long=policy, num_epochs=1)
        counts[policy] = sum((b["tokens"] == 99).sum() for b in drain(this))
    assert counts == {"truncate": 16, "drop": 0}


def test_examples_without_anything_to_train_on_are_left_out():
    prompt = {"tokens": np.full(20, 98), "loss_weights": np.arange(20) >= 18}
    alone = {"tokens": np.array([97]), "loss_weights": np.ones(1)}
    this = source(examples=[*examples(5), prompt, alone], too_long="truncate", num_epochs=1)
    assert this.num_examples == 5
    assert max(b["tokens"].max() for b in drain(this)) == 5


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(examples=[]), "there are no examples to train on"),
        (dict(row_length=1, too_long="drop"), "none of those given has 1 tokens or fewer"),
        (dict(rows=0), "rows=0: it must be at least 1"),
        (dict(too_long="cut"), "too_long='cut' is unknown"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        source(**changes)


def test_an_endless_source_has_no_count():
    with pytest.raises(ValueError, match="set num_epochs"):
        source().count_batches()
