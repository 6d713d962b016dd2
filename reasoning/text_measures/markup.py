r"""Takes a text apart into prose and what is marked as something else: code, LaTeX, quotations.

Everything takes time in proportion to the length of the text, whatever is left open in it.
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
# What goes on past the end of a line; of the others, a mark without its partner is only a mark.
_SPANNING = (*_FENCES, "$$", r"\[", _BEGIN)
_URL = re.compile(r"\bhttps?://\S+")


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a text.

    Attributes:
      kind: "prose", "code", "latex" or "quote".
      text: what stands there, without the marks around.
    """

    kind: str
    text: str


def parts_of(text: str) -> list[Part]:
    """The parts of a text, in order. Addresses of web pages are left out."""
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
        """The first place of a mark from this one on; len(found) where there is none."""
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
            yield Part(kind, text[end:])  # a program that was cut off
            return
        if until == len(found) or (mark not in _SPANNING and until > first("\n", place)):
            continue
        yield Part("prose", text[begun:start])
        yield Part(kind, text[end : found[until][1]])
        begun, place = found[until][2], until + 1
    yield Part("prose", text[begun:])


def _find(text: str, marks: set[str]) -> list[tuple[str, int, int]]:
    """(mark, start, end) of all marks and line ends."""
    # The longest first, so that ``` is not taken for `; an escaped dollar is none.
    literal = sorted((re.escape(mark) for mark in {*marks, "\n"}), key=len, reverse=True)
    pattern = rf"(?:\\\$)|(\\begin|\\end)\{{\w*\*?\}}|({'|'.join(literal)})"
    return [
        (match[1] or match[2], match.start(), match.end())
        for match in re.finditer(pattern, text)
        if match[1] or match[2]
    ]
