"""Splits a text into prose and marked parts: code, LaTeX and quotations.

It takes time in proportion to the length of the text, even if marks are left open.
"""

import bisect
import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping

_FENCES = ("```", "~~~")
_BEGIN, _END = r"\begin", r"\end"
# Opening mark -> (closing mark, kind).
_MARKUP = {
    "```": ("```", "code"), "~~~": ("~~~", "code"), "`": ("`", "code"), "$$": ("$$", "latex"),
    "$": ("$", "latex"), r"\(": (r"\)", "latex"), r"\[": (r"\]", "latex"), _BEGIN: (_END, "latex"),
}  # fmt: skip
_QUOTES = {
    '"': ('"', "quote"), "“": ("”", "quote"), "„": ("“", "quote"), "‘": ("’", "quote"),
    "«": ("»", "quote"), "「": ("」", "quote"), "『": ("』", "quote"), "《": ("》", "quote"),
}  # fmt: skip
# These marks may enclose several lines. Any other mark without its partner on the same line is
# plain text.
_SPANNING = (*_FENCES, "$$", r"\[", _BEGIN)
_URL = re.compile(r"\bhttps?://\S+")


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a text.

    Attributes:
      kind: "prose", "code", "latex" or "quote".
      text: the stretch without the marks around it.
    """

    kind: str
    text: str


def parts_of(text: str) -> list[Part]:
    """Returns the parts of a text in order, without the addresses of web pages."""
    parts = []
    for part in _split(_URL.sub(" ", text), _MARKUP):
        parts += _split(part.text, _QUOTES) if part.kind == "prose" else [part]
    return parts


def _split(text: str, marks: Mapping[str, tuple[str, str]]) -> Iterator[Part]:
    found = _find(text, {*marks, *(closing for closing, _ in marks.values())})
    places = collections.defaultdict(list)
    for place, (mark, _, _) in enumerate(found):
        places[mark].append(place)

    def first(mark, place):
        """Returns the next place of a mark from `place` on, or len(found) if there is none."""
        of_mark = places[mark]
        at = bisect.bisect_left(of_mark, place)
        return of_mark[at] if at < len(of_mark) else len(found)

    begun, place = 0, 0
    while place < len(found):
        mark, start, end = found[place]
        place += 1
        if mark not in marks:
            continue
        closing, kind = marks[mark]
        until = first(closing, place)
        if until == len(found) and mark in _FENCES:
            yield Part("prose", text[begun:start])
            yield Part(kind, text[end:])  # a program that the end of the text cuts off
            return
        if until == len(found) or (mark not in _SPANNING and until > first("\n", place)):
            continue
        yield Part("prose", text[begun:start])
        yield Part(kind, text[end : found[until][1]])
        begun, place = found[until][2], until + 1
    yield Part("prose", text[begun:])


def _find(text: str, marks: set[str]) -> list[tuple[str, int, int]]:
    """Returns (mark, start, end) of all marks and line ends."""
    # The longest mark comes first, so that ``` is not taken for `. An escaped dollar is no mark.
    literal = sorted((re.escape(mark) for mark in {*marks, "\n"}), key=len, reverse=True)
    pattern = rf"(?:\\\$)|(\\begin|\\end)\{{\w*\*?\}}|({'|'.join(literal)})"
    return [
        (match[1] or match[2], match.start(), match.end())
        for match in re.finditer(pattern, text)
        if match[1] or match[2]
    ]
