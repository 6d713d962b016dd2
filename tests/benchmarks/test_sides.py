"""The benchmarks' processes take turns, and what they measure is what they did."""

import os
import time

import numpy as np
import pytest

from benchmarks.shapes import SHAPES, Generation
from benchmarks.sides import ALLOCATOR, HUGE_PAGES, Measured, Side, processor, take_turns


def waits(seconds):
    return lambda: time.sleep(seconds)


def holds(mib):
    return lambda: np.ones(mib * 2**17).sum()


def writes(path, name):
    def run():
        with open(path, "a") as file:
            allocator = os.environ[ALLOCATOR], os.environ["GLIBC_TUNABLES"]
            file.write(f"{name} {allocator}\n")

    return run


def fails():
    raise RuntimeError("this side has no library")


def test_sides_take_turns_with_their_own_settings(tmp_path):
    path = str(tmp_path / "log")
    sides = {"a": Side(writes, (path, "a")), "b": Side(writes, (path, "b"), "default")}
    measured = take_turns(2, sides)
    first, *rest = [line.split(" ", 1)[0] for line in open(path)]
    assert [first, *rest] == ["a", "b"] + ["a", "a", "b", "b"] * 3
    assert len(set(open(path))) == 2 and f"('kept', '{HUGE_PAGES}')" in open(path).read()
    assert [len(each.seconds) for each in measured.values()] == [2, 2]


def test_times_and_memory_are_those_of_the_side():
    measured = take_turns(2, {"slow": Side(waits, (0.2,)), "large": Side(holds, (600,))})
    assert 0.2 <= measured["slow"].median < measured["slow"].first_seconds
    more = measured["large"].peak_gib - measured["slow"].peak_gib
    assert 0.5 < more < 0.9


def test_a_side_that_cannot_start_ends_the_comparison():
    with pytest.raises(EOFError):
        take_turns(1, {"bad": Side(fails)})


def test_shapes_fill_their_rows():
    for shape in SHAPES.values():
        documents = shape.documents()
        assert {len(row) for row in documents["dense"]} == {shape.length}
        lengths = [len(each) for each in documents["documents"]]
        assert len(set(lengths)) > 5 and max(lengths) <= shape.length
        assert 0.7 < sum(lengths) / (shape.rows * shape.length) <= 0.95
        for each in documents.values():
            assert max(ids.max() for ids in each) < shape.config.vocab_size


def test_generated_tokens_are_counted_and_the_median_is_one():
    assert Generation(prompts=2, group=3, prompt_tokens=5, new_tokens=7).tokens == 42
    assert Measured([3.0, 1.0, 2.0], 9.0, 1.0).median == 2.0
    assert processor().endswith(f"{os.cpu_count()} cores")
