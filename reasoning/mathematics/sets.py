"""Reads and compares sets of real numbers: intervals, unions, inequalities, set builders."""

import dataclasses
import math
import re
from fractions import Fraction

import mpmath

from reasoning.mathematics.equality import names, number, parse
from reasoning.mathematics.reading.splitting import (
    elements,
    inner_elements,
    is_enclosed,
    split_at,
    split_relation,
)
from reasoning.mathematics.reading.trees import Unreadable
from reasoning.mathematics.values import Undefined, evaluate, is_real, same_value

Bound = Fraction | float

_OR = re.compile(r"\\text\{ ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])")
_AND = re.compile(r"\\text\{ ?and ?\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\text\{ ?but ?\}")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_CAP = re.compile(r"\\cap(?![A-Za-z])")
_MINUS = re.compile(r"\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])")
_BUILDER = re.compile(
    r"\\?\{(\\?[A-Za-z]+)(?:\\in\s?\\mathbb\{R\}|\\in\s?R)?\s?(?:\\mid(?![A-Za-z])|\||:)(.+?)\\?\}"
)
_MEMBER = re.compile(r"(\\?[A-Za-z]+)\s?\\in(?![A-Za-z])\s?(.+)")
_LOOKS_LIKE_SET = re.compile(
    r"\\(?:cup|cap|setminus|backslash|in|mathbb|mid|le|ge|ne|emptyset)(?![A-Za-z])|[<>]|\\\{.*[:|]"
)
_ABSOLUTE = re.compile(r"\|([^|]+)\|(<|>|\\le|\\ge)\s?([^<>|]+)")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


@dataclasses.dataclass(frozen=True)
class RealSet:
    """A union of disjoint intervals, in order.

    Attributes:
      pieces: (low, whether low is excluded, high, whether high is excluded).
      variable: the name before the set, or "".
    """

    pieces: tuple[tuple[Bound, bool, Bound, bool], ...]
    variable: str = ""


_ALL = ((-math.inf, True, math.inf, True),)


def looks_like_set(text: str) -> bool:
    """Says whether a text has a sign of a set or an inequality."""
    return bool(_LOOKS_LIKE_SET.search(text))


def compare_sets(expected: str, given: str) -> bool | None:
    """Says whether two texts name the same set of real numbers; None if one names no set."""
    try:
        one, other = read_set(expected), read_set(given)
    except (Unreadable, Undefined):
        return None
    if one is None or other is None:
        return None
    if one.variable and other.variable and one.variable != other.variable:
        return False
    return one.pieces == other.pieces


def read_set(text: str) -> RealSet | None:
    """Returns the set of real numbers that a canonical text names, or None."""
    text = text.strip()
    for pattern, combine in ((_OR, _union), (_CUP, _union), (_AND, _both), (_CAP, _both)):
        parts, signs = split_at(text, pattern)
        if signs:
            return _combined(parts, combine)
    parts, signs = split_at(text, _MINUS)
    if signs:
        return _combined(parts, lambda one, other: _both(one, _complement(other)))
    builder = _BUILDER.fullmatch(text)
    if builder:
        inner = read_set(builder[2])
        fits = inner is not None and inner.variable in ("", builder[1])
        return RealSet(inner.pieces) if fits else None
    member = _MEMBER.fullmatch(text)
    if member:
        inner = read_set(member[2])
        return RealSet(inner.pieces, member[1]) if inner and not inner.variable else None
    if text in (r"\mathbb{R}", r"\R", r"\text{all real numbers}", "all real numbers"):
        return RealSet(_ALL)
    if text == r"\emptyset":
        return RealSet(())
    distance = _ABSOLUTE.fullmatch(text)
    if distance:
        return _within(*distance.groups())
    return _inequalities(text) or _interval(text) or _finite(text)


def _within(inner, sign, bound):
    """Returns the solutions of |inner| < bound and the like, for a positive bound."""
    limit = _bound(bound)
    if limit is None or not 0 < limit < math.inf:
        return None
    if sign in ("<", r"\le"):
        return read_set(f"-({bound}){sign} {inner}{sign} {bound}")
    return read_set(rf"{inner}{sign} {bound}\text{{or}}{inner}{_FLIPPED[sign]} -({bound})")


def _combined(parts, combine):
    found = [read_set(part) for part in parts]
    if None in found:
        return None
    variables = {each.variable for each in found} - {""}
    if len(variables) > 1:
        return None
    pieces = found[0].pieces
    for member in found[1:]:
        pieces = combine(pieces, member.pieces)
    return RealSet(pieces, variables.pop() if variables else "")


def _interval(text):
    if not is_enclosed(text):
        return None
    ends = inner_elements(text)
    if len(ends) != 2:
        return None
    low, high = (_bound(end) for end in ends)
    if low is None or high is None or not low < high:
        return None
    return RealSet(_union((), ((low, text[0] == "(", high, text[-1] == ")"),)))


def _finite(text):
    brackets, values = elements(text)
    bounds = [_bound(value) for value in values]
    if brackets != "{}" or any(bound is None or math.isinf(bound) for bound in bounds):
        return None
    return RealSet(_union((), tuple((bound, False, bound, False) for bound in bounds)))


def _bound(text):
    """Returns an end of an interval, to 40 digits."""
    tree_text = text.replace("+\\infty", "\\infty")
    if tree_text == r"\infty":
        return math.inf
    if tree_text == r"-\infty":
        return -math.inf
    value = number(tree_text)
    if value is None or not is_real(value[0]):
        return None
    return _rounded(value[0])


def _rounded(value):
    if isinstance(value, Fraction):
        return value
    with mpmath.workdps(60):
        text = mpmath.nstr(value, 40)
    mantissa, _, exponent = text.partition("e")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


def _inequalities(text):
    """Returns the solutions of a chain of inequalities that are linear in one variable."""
    sides, signs = split_relation(text)
    if not signs or any(sign not in _FLIPPED for sign in signs):
        return None
    pieces, variables = _ALL, set()
    for left, sign, right in zip(sides, signs, sides[1:]):
        for side in (left, right):
            if side.strip() not in (r"\infty", r"-\infty"):
                variables |= names(side)
        solved = _linear(left, sign, right)
        if solved is None:
            return None
        pieces = _both(pieces, solved)
    if len(variables) != 1:
        return None
    return RealSet(pieces, variables.pop())


def _linear(left, sign, right):
    infinite = [side.strip() for side in (left, right)]
    if infinite[0] == r"-\infty" or infinite[1] == r"\infty":
        return _ALL if sign == "<" else None
    variables = names(left) | names(right)
    if len(variables) != 1 or any(name.endswith("()") for name in variables):
        return None
    variable = next(iter(variables))
    trees = [parse(left), parse(right)]

    def difference(at):
        (one, other), digits = evaluate(trees, {variable: at})
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one - other, digits
        with mpmath.workdps(digits):
            return _mp(one) - _mp(other), digits

    (zero, digits), (one, _), (two, _), (far, _) = (difference(Fraction(n)) for n in (0, 1, 2, -7))
    if not all(is_real(value) for value in (zero, one, two, far)):
        return None
    with mpmath.workdps(digits):
        slope = one - zero
        straight = same_value(two + 0, zero + 2 * slope, digits) and same_value(
            far + 0, zero - 7 * slope, digits
        )
        if slope == 0 or not straight:
            return None
        bound = _rounded(-zero / slope)
    if slope < 0:
        sign = _FLIPPED[sign]
    if sign == r"\ne":
        return ((-math.inf, True, bound, True), (bound, True, math.inf, True))
    out = sign in ("<", ">")
    if sign in ("<", r"\le"):
        return ((-math.inf, True, bound, out),)
    return ((bound, out, math.inf, True),)


def _mp(value):
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return value


def _union(one, other):
    """Returns disjoint pieces in order; pieces that touch are joined."""
    pieces = sorted((*one, *other), key=lambda piece: (piece[0], piece[1]))
    joined: list = []
    for low, low_out, high, high_out in pieces:
        if joined:
            last = joined[-1]
            if low < last[2] or (low == last[2] and not (low_out and last[3])):
                end = max((last[2], not last[3]), (high, not high_out))
                joined[-1] = (last[0], last[1], end[0], not end[1])
                continue
        joined.append((low, low_out, high, high_out))
    return tuple(joined)


def _complement(pieces):
    gaps, low, low_out = [], -math.inf, True
    for piece_low, piece_out, high, high_out in pieces:
        if low < piece_low or (low == piece_low and not low_out and piece_out):
            gaps.append((low, low_out, piece_low, not piece_out))
        low, low_out = high, not high_out
    if low < math.inf:
        gaps.append((low, low_out, math.inf, True))
    return tuple(gaps)


def _both(one, other):
    return _complement(_union(_complement(one), _complement(other)))
