"""Packing: nothing is lost, nothing overlaps, and few rows are wasted."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tokens.packing import pack, place, place_apart


def sequences_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "tokens": rng.integers(1, 1000, n),
            "loss_weights": rng.random(n).astype(np.float32),
            "advantages": rng.normal(size=n),
        }
        for n in lengths
    ]


LENGTHS = st.lists(st.integers(1, 16), min_size=1, max_size=60)


@given(lengths=LENGTHS, apart=st.booleans())
def test_every_sequence_is_found_again(lengths, apart):
    sequences = sequences_of(lengths)
    placement = (place_apart if apart else place)(lengths, 16)
    batch = pack(sequences, placement, 16)
    assert {x.shape for x in batch.values()} == {(placement.num_rows, 16)}
    for i, sequence in enumerate(sequences):
        row, start, n = placement.row[i], placement.offset[i], lengths[i]
        cut = {name: x[row, start : start + n] for name, x in batch.items()}
        np.testing.assert_array_equal(cut["tokens"], sequence["tokens"])
        np.testing.assert_array_equal(cut["advantages"], np.float32(sequence["advantages"]))
        np.testing.assert_array_equal(cut["positions"], np.arange(n))
        np.testing.assert_array_equal(cut["segment_ids"], placement.segment[i])
        # Nothing of the sequence predicts its first token.
        assert cut["loss_weights"][0] == 0
        np.testing.assert_array_equal(cut["loss_weights"][1:], sequence["loss_weights"][1:])
    # All else is padding, so nothing overlaps either.
    assert np.count_nonzero(batch["segment_ids"]) == sum(lengths)
    assert all(not x[batch["segment_ids"] == 0].any() for x in batch.values())


@given(lengths=LENGTHS)
def test_segments_count_from_one_along_each_row(lengths):
    placement = place(lengths, 16)
    for row in range(placement.num_rows):
        inside = placement.row == row
        by_offset = placement.segment[inside][np.argsort(placement.offset[inside])]
        np.testing.assert_array_equal(by_offset, np.arange(1, inside.sum() + 1))


@given(lengths=LENGTHS)
def test_no_two_rows_could_be_one(lengths):
    placement = place(lengths, 16)
    filled = np.sort(np.bincount(placement.row, placement.length))
    assert len(filled) == placement.num_rows and filled.max() <= 16
    assert filled[:2].sum() > 16 or len(filled) == 1


@pytest.mark.parametrize(
    "lengths",
    [
        # In the order given, without looking back, it would take three rows.
        [10, 9, 7, 6],
        # With the 4 in the row that has most room, a 3 would need a third one.
        [12, 10, 4, 3, 3],
    ],
)
def test_finds_the_perfect_packing(lengths):
    placement = place(lengths, 16)
    np.testing.assert_array_equal(np.bincount(placement.row, placement.length), [16, 16])


def test_more_rows_are_empty_and_fewer_an_error():
    sequences = sequences_of([3, 4])
    placement = place([3, 4], 8)
    assert not pack(sequences, placement, 8, num_rows=3)["segment_ids"][1:].any()
    with pytest.raises(ValueError, match="2 rows are needed but num_rows=1"):
        pack(sequences_of([7, 8]), place([7, 8], 8), 8, num_rows=1)


def test_speed():
    """At least 5,000 short documents a second, by far, in processor time."""
    sequences = sequences_of(np.random.default_rng(0).integers(8, 60, 4000))
    start = time.process_time()
    lengths = [len(sequence["tokens"]) for sequence in sequences]
    pack(sequences, place(lengths, 128), 128)
    assert 4000 / (time.process_time() - start) > 5000


@pytest.mark.parametrize(
    "lengths, message",
    [
        ([], "no sequences to pack"),
        ([3, 0], "sequence 1 is empty"),
        ([3, 17, 9], "sequence 1 has 17 tokens, longer than row length 16: raise it or truncate"),
    ],
)
def test_bad_lengths(lengths, message):
    for placing in (place, place_apart):
        with pytest.raises(ValueError, match=message):
            placing(lengths, 16)


def test_arrays_of_unequal_length():
    sequences = [{"tokens": np.arange(3), "loss_weights": np.ones(2)}]
    with pytest.raises(ValueError, match="'loss_weights' has 2 entries in all for 3 tokens"):
        pack(sequences, place([3], 8), 8)
