"""Keeps a chain of thought apart from the answer while a response is being written.

A caller may show the answer and hide the chain, or show both: `split_thinking` labels every piece
of text as chain or answer. `reasoning.response` does the same for whole responses.
"""

import re
from collections.abc import Iterable, Iterator

from reasoning.generation.streaming import overlap
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN

THINKING, ANSWERING = "thinking", "answering"
_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_TAG = re.compile("|".join(map(re.escape, _TAGS)))


def split_thinking(chunks: Iterable[str], opening: str = "") -> Iterator[tuple[str, str]]:
    """Yields `(THINKING or ANSWERING, text)` for a streamed response, without the format's tags.

    A tag may be split over several chunks, so text that could begin a tag is held back until the
    next chunks settle it. `reasoning.response.after_chain` agrees for a whole response.

    Args:
      chunks: the parts of a response.
      opening: the tags with which the prompt began the response; see
        `reasoning.response.opened_by`.
    """
    opened = THINK_OPEN in opening and THINK_CLOSE not in opening
    state, held = THINKING if opened else ANSWERING, ""
    for chunk in chunks:
        held += chunk
        while found := _TAG.search(held):
            if before := held[: found.start()]:
                yield state, before
            if found.group() == THINK_OPEN:
                state = THINKING
            elif found.group() == THINK_CLOSE:
                state = ANSWERING
            held = held[found.end() :]
        kept = _begun_tag(held)
        if len(held) > kept:
            yield state, held[: len(held) - kept]
            held = held[len(held) - kept :]
    if held:
        yield state, held


def _begun_tag(text: str) -> int:
    """Returns the length of the longest suffix of `text` that may begin a tag."""
    return max(overlap(text, tag) for tag in _TAGS)
