"""Work that is run side by side."""

import time

import pytest

from models.cpu.lanes import in_threads


def test_nothing_is_begun_once_an_item_has_failed():
    begun = []

    def run(item):
        begun.append(item)
        if item == 1:
            raise ValueError("item 1")
        time.sleep(0.001 * (item > 9))
        return -item

    assert in_threads(run, [0, 2, 3], 2) == [0, -2, -3]
    with pytest.raises(ValueError, match="item 1"):
        in_threads(run, [1, *range(10, 5000)], 2)
    assert len(begun) < 1000
