"""Compares expressions, equations and inequalities by their values at many points.

Two expressions that agree at points chosen without a pattern are the same (Schwartz and Zippel);
`exact` proves it if both are quotients of polynomials. Two equations are the same if the
differences of their sides are, up to a constant factor.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

from reasoning.mathematics.exact import same_rational_function
from reasoning.mathematics.reading.latex import read
from reasoning.mathematics.reading.trees import Tree, Unreadable
from reasoning.mathematics.values import (
    Undefined,
    Value,
    evaluate,
    is_real,
    ratio,
    same_value,
)

# Signs and sizes of the points. They lie on both sides of 0 and of 1, where roots and logarithms
# change.
_SIGNS = ("+", "+", "+", "-", "mixed", "mixed", "+", "-", "mixed", "+")
_SMALL = (True, False, False, True, False, True, True, False, False, False)
_ENOUGH = 3


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Tree:
    """Reads a text like `latex.read` and caches the tree."""
    return read(text)


def _collect(tree):
    kind = tree[0]
    if kind == "symbol":
        return frozenset() if tree[1] == "infty" else frozenset([tree[1]])
    if kind == "unknown":
        return _union(tree[2]) | {f"{tree[1]}()"}
    if kind == "bound":
        inner = (_collect(tree[4]) - {tree[2]}) | _union(tree[3])
        infinite = ("symbol", "infty") in tree[3]
        return inner | ({f"{tree[1]}()"} if tree[1] in ("int", "lim") or infinite else frozenset())
    if kind in ("add", "multiply"):
        return _union(tree[1])
    if kind == "function":
        own = {"log()"} if tree[1] == "log" and len(tree[2]) == 1 else frozenset()
        return _union(tree[2]) | own
    return _union([part for part in tree[1:] if isinstance(part, tuple)])


def _union(trees):
    return frozenset().union(*(_collect(tree) for tree in trees))


def names(text: str) -> frozenset[str]:
    """Returns the names of the variables in a text.

    Raises:
      Unreadable: the text is no expression.
    """
    return _names(text)


@functools.lru_cache(maxsize=4096)
def _names(text):
    return _collect(parse(text))


def number(text: str) -> tuple[Value, int] | None:
    """Returns the value of a text without variables, and its digits.

    The result is None if the text has variables or cannot be read.
    """
    try:
        if names(text):
            return None
        values, digits = evaluate([parse(text)], {})
    except (Unreadable, Undefined):
        return None
    return values[0], digits


def same_expression(one: str, other: str) -> bool:
    """Says whether two texts have the same value wherever both are real.

    Raises:
      Unreadable: a text is no expression.
    """
    trees = [parse(one), parse(other)]
    variables = names(one) | names(other)
    if not {name for name in variables if not name.endswith("()")} and "bound" not in str(trees):
        return _agree_at(trees, {})
    if _infinite(one) or _infinite(other):
        return one == other
    agreed = complex_agreed = complex_differ = 0
    for point in points(variables, whole="'bound'" in str(trees)):
        try:
            (left, right), digits = evaluate(trees, point)
        except Undefined:
            if _defined(trees[0], point) != _defined(trees[1], point):
                return False
            continue
        same = same_value(left, right, digits)
        if is_real(left) and is_real(right):
            if not same:
                return False
            agreed += 1
        elif is_real(left) != is_real(right):
            return False
        else:
            complex_agreed += same
            complex_differ += not same
    if agreed < _ENOUGH and (complex_differ or agreed + complex_agreed < _ENOUGH):
        return False
    return same_rational_function(*trees) is not False


def _infinite(text):
    return r"\infty" in text and parse(text)[0] != "bound"


def _agree_at(trees, point):
    infinite = [_signed_infinity(tree) for tree in trees]
    if any(infinite):
        return infinite[0] == infinite[1]
    try:
        (left, right), digits = evaluate(trees, point)
    except Undefined:
        return False
    return same_value(left, right, digits)


def _signed_infinity(tree):
    if tree == ("symbol", "infty"):
        return 1
    return -1 if tree == ("negate", ("symbol", "infty")) else 0


def _defined(tree, point):
    try:
        evaluate([tree], point)
    except Undefined:
        return False
    return True


def points(variables: Iterable[str], whole: bool = False) -> Iterator[dict[str, Fraction]]:
    """Yields points at which to compare: a value for each variable, derived from its name.

    Args:
      variables: the names of the variables.
      whole: whether the values are whole numbers.
    """
    variables = sorted(name for name in variables if not name.endswith("()"))
    for i, (sign, small) in enumerate(zip(_SIGNS, _SMALL)):
        point = {"": Fraction(i)}
        for name in variables:
            digest = hashlib.blake2b(f"{i} {name}".encode(), digest_size=8).digest()
            draw = int.from_bytes(digest, "big")
            if whole:
                point[name] = Fraction(draw % 9 + 2)
                continue
            value = Fraction(draw % 89 + 7, 101) if small else Fraction(draw % 307 + 112, 101)
            negative = sign == "-" or (sign == "mixed" and (draw >> 20) % 2)
            point[name] = -value if negative else value
        yield point


def proportional(one: Tree, other: Tree, variables: frozenset[str]) -> Value | None:
    """Returns the factor c with `one` = c * `other` everywhere.

    The result is None if there is no such constant, or if one of them is zero everywhere.
    """
    real, other_ratios = [], []
    for point in points(variables, whole="'bound'" in str((one, other))):
        try:
            (left, right), digits = evaluate([one, other], point)
        except Undefined:
            if _defined(one, point) != _defined(other, point):
                return None
            continue
        if left == 0 and right == 0:
            continue
        if left == 0 or right == 0 or is_real(left) != is_real(right):
            return None
        ratios = real if is_real(left) else other_ratios
        ratios.append((ratio(left, right, digits), digits))
    # With roots of negative numbers, the two may take different branches.
    ratios = real if len(real) >= _ENOUGH else real + other_ratios
    if len(ratios) < _ENOUGH:
        return None
    factor, digits = ratios[0]
    same = all(same_value(factor, each, min(digits, d)) for each, d in ratios[1:])
    return factor if same else None
