"""Keeps a chain of thought apart from the answer while a response is being written.

A caller may show the answer and hide the chain, or show both: `ThinkingSplitter` labels every
piece of text as chain, answer or tag. `reasoning.response` does the same for whole responses.

Text is held back until it is settled what it is, so a hidden chain never shows, however the
response is cut into chunks. A tag that is only quoted is text: one inside a code fence that is
open, or inside `code` or "a string" that starts and ends on the tag's line.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reasoning.generation.streaming import overlap
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from reasoning.text_measures.reflection import count_self_checks

THINKING, ANSWERING, TAG = "thinking", "answering", "tag"
_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_TAG = re.compile("|".join(map(re.escape, _TAGS)))
_FENCE = re.compile(r"^[ \t]*```", re.M)
_QUOTES = '`"'


class Segment(NamedTuple):
    """A piece of a response.

    Attributes:
      kind: `THINKING`, `ANSWERING`, or `TAG` for a tag of the format.
      text: the piece.
      start: its place in the response, in characters. Segments follow each other without a gap.
    """

    kind: str
    text: str
    start: int


class ThinkingSplitter:
    """Labels the text of one response as it comes.

    Attributes:
      thinking: whether the text that comes next belongs to the chain, as far as is settled.
    """

    def __init__(self, opening: str = ""):
        """Starts a response.

        Args:
          opening: the tags with which the prompt began the response; see
            `reasoning.response.opened_by`.
        """
        self.thinking = THINK_OPEN in opening and THINK_CLOSE not in opening
        self._held, self._start = "", 0
        # What stands on the current line before the text held, and whether a code fence is open.
        self._line, self._fenced = "", False

    def feed(self, text: str) -> list[Segment]:
        """Takes more text and returns the segments that it settles."""
        self._held += text
        return self._settle(final=False)

    def finish(self) -> list[Segment]:
        """Returns the segments of the rest; call it at the end of the response."""
        return self._settle(final=True)

    def close(self) -> list[Segment]:
        """Ends the chain here, whatever the text says; returns the segments of the rest."""
        rest = self.finish()
        self.thinking, self._line, self._fenced = False, "", False
        return rest

    def _settle(self, final: bool) -> list[Segment]:
        found: list[Segment] = []
        position = 0
        while tag := _TAG.search(self._held, position):
            quoted = self._quoted(tag.start(), tag.end(), final)
            if quoted is None:  # The rest of the line will tell.
                self._give(found, self._kind, tag.start())
                return found
            if quoted:
                position = tag.end()
                continue
            self._give(found, self._kind, tag.start())
            self._give(found, TAG, tag.end() - tag.start())
            if tag.group() in (THINK_OPEN, THINK_CLOSE):
                # Fences and quotes of the chain mean nothing in the answer, nor the reverse.
                self.thinking = tag.group() == THINK_OPEN
                self._line, self._fenced = "", False
            position = 0
        kept = 0 if final else max(overlap(self._held, each) for each in _TAGS)
        self._give(found, self._kind, len(self._held) - kept)
        return found

    @property
    def _kind(self) -> str:
        return THINKING if self.thinking else ANSWERING

    def _give(self, found: list[Segment], kind: str, length: int) -> None:
        if not length:
            return
        text, self._held = self._held[:length], self._held[length:]
        found.append(Segment(kind, text, self._start))
        self._start += length
        self._line, self._fenced = self._after(text)

    def _after(self, text: str) -> tuple[str, bool]:
        """Returns the current line and whether a fence is open, after some more text."""
        lines = (self._line + text).split("\n")
        fences = sum(bool(_FENCE.match(line)) for line in lines[:-1])
        return lines[-1], self._fenced ^ bool(fences % 2)

    def _quoted(self, start: int, end: int, final: bool) -> bool | None:
        """Returns whether a tag in the held text is quoted; None if more text must tell."""
        line, fenced = self._after(self._held[:start])
        if fence := _FENCE.match(line):
            line, fenced = line[fence.end() :], not fenced
        if fenced:
            return True
        rest, newline, _ = self._held[end:].partition("\n")
        open_quotes = [quote for quote in _QUOTES if _is_open(line, quote)]
        if any(quote in rest for quote in open_quotes):
            return True
        if open_quotes and not newline and not final:
            return None
        return False


def _is_open(line: str, quote: str) -> bool:
    """Returns whether a line stops inside a quotation; a backslash hides a quotation mark."""
    return len(re.findall(rf"(?<!\\){quote}", line)) % 2 == 1


def split_thinking(chunks: Iterable[str], opening: str = "") -> Iterator[tuple[str, str]]:
    """Yields `(THINKING or ANSWERING, text)` for a streamed response, without the format's tags.

    Args:
      chunks: the parts of a response.
      opening: see `ThinkingSplitter`.
    """
    splitter = ThinkingSplitter(opening)
    for chunk in chunks:
        yield from ((s.kind, s.text) for s in splitter.feed(chunk) if s.kind != TAG)
    yield from ((s.kind, s.text) for s in splitter.finish() if s.kind != TAG)


def summarise(thought: str) -> str:
    """Sums up a chain of thought in one line: its length, its self-checks and its last line."""
    lines = [line.strip() for line in thought.splitlines() if line.strip()]
    if not lines:
        return "(no thoughts)"
    checks, words = count_self_checks(thought), len(thought.split())
    last = lines[-1] if len(lines[-1]) <= 120 else f"{lines[-1][:117]}..."
    return f"({len(lines)} lines, {words} words, {checks} self-checks; at last: {last})"
