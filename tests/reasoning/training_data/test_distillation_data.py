"""Tests mixtures by counting, clean records by construction, and the order of a curriculum."""

import collections

import numpy as np
import pytest

from reasoning.training_data.curation import Decontaminator
from reasoning.training_data.distillation_data import clean, mix, short_first

SOURCES = {
    "math": [f"m{i}" for i in range(60)],
    "code": [f"c{i}" for i in range(10)],
    "chat": ["x"],
}


def counted(mixture):
    return collections.Counter(each[0] for each in mixture)


@pytest.mark.parametrize(
    "shares, expected",
    [
        # The scarcer source is used up and decides how much of the other there is.
        ({"math": 3, "code": 1, "chat": 0}, {"m": 30, "c": 10}),
        ({"math": 0.9, "code": 0.1, "chat": 0}, {"m": 60, "c": 7}),
        ({"math": 1, "code": 0, "chat": 0}, {"m": 60}),
        ({"math": 5, "code": 2, "chat": 1}, {"m": 5, "c": 2, "x": 1}),
    ],
)
def test_shares_are_kept_and_nothing_is_repeated(shares, expected):
    mixture = mix(SOURCES, shares, seed=0)
    assert counted(mixture) == expected and len(set(mixture)) == len(mixture)


def test_a_mixture_is_shuffled_by_its_seed():
    shares = {"math": 3, "code": 1, "chat": 0}
    first, again, other = (mix(SOURCES, shares, seed) for seed in (0, 0, 1))
    assert first == again != other
    # Sources alternate, and which records are taken is random too.
    assert 2 < counted(first[:20])["c"] < 8
    assert {x for x in first if x[0] == "m"} != {f"m{i}" for i in range(30)}


@pytest.mark.parametrize(
    "sources, shares, message",
    [
        (SOURCES, {"math": -1, "code": 1, "chat": 0}, "the data share of math is -1: give at"),
        ({"a": [1]}, {"a": 0}, "no source has a share above 0: give one to any of a"),
        ({"a": [1], "b": []}, {"a": 1, "b": 1}, "b holds no records to mix in"),
    ],
)
def test_bad_shares(sources, shares, message):
    with pytest.raises(ValueError, match=message):
        mix(sources, shares, 0)


def test_records_with_words_of_the_evaluation_are_left_out():
    def chat(question, answer):
        return {"messages": [{"role": "user", "content": question},
                             {"role": "assistant", "content": answer}]}  # fmt: skip

    good = chat("How many legs do two spiders have?", "Sixteen.")
    asked = chat("Tell me: how many legs do THREE spiders have, please?", "24")
    told = chat("A riddle?", "Well: how many legs do three spiders have? 24.")
    decontaminator = Decontaminator(["How many legs do three spiders have?"], n=6)
    assert clean([asked, good, told], decontaminator) == [good]


def test_a_curriculum_goes_from_short_to_long_and_is_random_within_its_stages():
    lengths = np.random.default_rng(0).integers(1, 1000, 120)
    order = short_first(lengths, stages=4, seed=0)
    assert sorted(order) == list(range(120))
    stages = lengths[order].reshape(4, 30)
    for earlier, later in zip(stages, stages[1:]):
        assert earlier.max() <= later.min()
    assert all((np.diff(stage) < 0).any() for stage in stages)
    assert not np.array_equal(short_first(lengths, 4, 1), order)
    with pytest.raises(ValueError, match="curriculum of 0 stages"):
        short_first(lengths, 0, 0)
