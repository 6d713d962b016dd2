"""Draws a series of numbers as one short line of text."""

import math
import sys
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
# For terminals that cannot show the blocks.
PLAIN = "_.:-=+*#"
WIDTH = 20


def sparkline(values: Sequence[float | None], width: int = WIDTH, blocks: str = BLOCKS) -> str:
    """Returns a line of at most `width` characters that rises and falls with the values.

    Each character is the mean of equally many neighbours; the lowest of these means gets the first
    block and the highest the last. Equal values get the first block. Values that are None or not
    finite are left out; a stretch that has no others is a blank.

    Args:
      values: the series, oldest first.
      width: the most characters.
      blocks: the characters, from the lowest to the highest.
    """
    if width < 1:
        raise ValueError(f"width={width}: it must be at least 1")
    count = min(width, len(values))
    means: list[float | None] = []
    for i in range(count):
        part = values[i * len(values) // count : (i + 1) * len(values) // count]
        kept = [value for value in part if value is not None and math.isfinite(value)]
        means.append(sum(kept) / len(kept) if kept else None)
    known = [value for value in means if value is not None]
    if not known:
        return " " * count
    low, span = min(known), max(known) - min(known)
    top = len(blocks) - 1

    def block(value: float) -> str:
        return blocks[round((value - low) / span * top) if span > 0 else 0]

    return "".join(" " if value is None else block(value) for value in means)


def blocks_for(encoding: str | None = None) -> str:
    """Returns the blocks that an encoding can write; by default that of standard error."""
    name: str = encoding or getattr(sys.stderr, "encoding", None) or "ascii"
    try:
        BLOCKS.encode(name)
    except (LookupError, UnicodeEncodeError):
        return PLAIN
    return BLOCKS
