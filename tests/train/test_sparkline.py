"""Sparklines rise and fall with the values, and the progress display shows them on one line."""

import io
import math
import random

import pytest
import rich.console

from train.progress import Progress
from train.sparkline import BLOCKS, PLAIN, blocks_for, sparkline


def test_lowest_and_highest_have_their_blocks_and_order_is_kept():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BLOCKS
    assert sparkline([7, 0, 7], blocks=PLAIN) == "#_#"
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.gauss(0, 10) for _ in range(rng.randrange(1, 20))]
        line = sparkline(values)
        assert len(line) == len(values)
        ranks = [BLOCKS.index(each) for each in line]
        for i, a in enumerate(values):
            for j, b in enumerate(values):
                assert a > b or ranks[i] <= ranks[j]


def test_long_series_are_means_of_equal_parts():
    values = [0.0] * 50 + [1.0] * 50
    assert sparkline(values, 10) == BLOCKS[0] * 5 + BLOCKS[-1] * 5
    # One spike among ten neighbours is a tenth of it: it must not fill its part.
    assert (
        sparkline([0.0] * 15 + [10.0] + [0.0] * 4 + [10.0] * 10, 3)
        == BLOCKS[0] + BLOCKS[1] + BLOCKS[-1]
    )
    for count in (1, 19, 20, 21, 997):
        assert len(sparkline(list(range(count)))) == min(count, 20)


def test_equal_missing_and_infinite_values():
    assert sparkline([]) == "" and sparkline([3, 3, 3]) == BLOCKS[0] * 3
    assert sparkline([None, math.nan]) == "  "
    assert sparkline([0, None, math.inf, 1]) == f"{BLOCKS[0]}  {BLOCKS[-1]}"
    with pytest.raises(ValueError, match="width=0"):
        sparkline([1], 0)


def test_a_terminal_that_cannot_show_blocks_gets_plain_ones():
    assert blocks_for("utf-8") == BLOCKS and blocks_for("ascii") == PLAIN == blocks_for("no such")


def shown(terminal, width, steps=30, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = rich.console.Console(
        file=file, force_terminal=terminal, width=width, highlight=False, soft_wrap=True,
        legacy_windows=False,
    )  # fmt: skip
    progress = Progress("r1_zero", steps, 0, ("reward", "response_tokens"), console)
    for step in range(1, steps + 1):
        values = {"reward": step / steps, "response_tokens": 60.0 - step, "accuracy": 0.5}
        progress.update(step, values)
    progress.close()
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_terminal_shows_one_line_that_is_rewritten(width):
    text = shown(True, width)
    last = text.replace("\x1b[2K", "\n").splitlines()
    lines = [line for line in last if "r1_zero" in line]
    assert lines and "30/30" in lines[-1]
    reward = lines[-1].split("reward ")[1].split(" ")[0]
    assert set(reward) <= set(BLOCKS) and reward[0] == BLOCKS[0] and reward[-1] == BLOCKS[-1]
    length = lines[-1].split("response_tokens ")[1]
    assert length[0] == BLOCKS[-1]
    # Each rewriting is one line: rich moves the cursor up by as many lines as it had drawn.
    assert "\x1b[1A" not in text


def test_elsewhere_plain_lines_come_at_intervals():
    lines = shown(False, 80).splitlines()
    # The first step, and the last; those between came within the interval.
    assert len(lines) == 2 and "\x1b" not in "".join(lines)
    assert lines[0].startswith("r1_zero: step 1/30") and "step 30/30" in lines[1]
    assert f"reward {sparkline([i / 30 for i in range(1, 31)])} 1 " in lines[1]
    assert PLAIN[0] in shown(False, 80, encoding="ascii").splitlines()[1]
