"""Compares equations, inequalities, and values with a name before them ("x = 5", "9*2 = 18")."""

import re
from collections.abc import Callable

from reasoning.mathematics.equality import (
    names,
    number,
    parse,
    proportional,
)
from reasoning.mathematics.reading.splitting import split_relation, with_signs
from reasoning.mathematics.reading.trees import Unreadable
from reasoning.mathematics.sets import compare_sets

SameValue = Callable[[str, str], bool]
# Matches a name without a number that could be an answer: "x", "f(2)", "\angle ABC", "Profit".
_NAME = re.compile(
    r"(?:\\?[A-Za-z]++(?:_(?:\{[^{}]{1,12}\}|\\?\w+))?'{0,3}|\\text\{[^{}]*\}|\([^()=]{1,12}\)"
    r"|\\[a-z]+\{[A-Za-z ]{1,8}\}|\^\{-1\}|\\max|[ ]){1,8}"
)
# Matches "P(X=2)" and "|A\cap B|".
_CALL = re.compile(
    r"(?:P|Pr|E|Var|\\text\{[^{}]*\})\([^()]{1,40}\)|\|[A-Z](?:\\c[au]p[ ]?[A-Z])?\|"
)


def is_name(text: str) -> bool:
    """Says whether a side of an equation only names the other side."""
    text = text.strip()
    if len(text) >= 60 or not re.match(r"[A-Za-z\\|]", text):
        return False
    if re.match(r"\\frac\{(?:d|\\partial)", text):
        return parse(text)[0] == "symbol"
    if _CALL.fullmatch(text):
        return True
    return bool(_NAME.fullmatch(text)) and not number(text)


def compare_relations(expected: str, given: str, same: SameValue) -> bool:
    """Compares an answer with a reference, where at least one of them has a relation sign.

    - "x = 5" is 5 and x = 5, but not y = 5; "9*2 = 18" is 18 if every side is.
    - Equations with variables are the same if the differences of their sides are, up to a constant
      factor. Equations without variables are the same if all sides have the value of the reference.
    - Inequalities are the same if their solutions are.

    Args:
      expected: the reference.
      given: the answer.
      same: compares two texts without relation signs.

    Raises:
      Unreadable: a side is empty or cannot be read.
    """
    sides, signs = split_relation(expected)
    others, other_signs = split_relation(given)
    if not all((*sides, *others)):
        raise Unreadable("a side of a relation is empty")
    if set(signs) <= {"="} and set(other_signs) <= {"="}:
        if not signs:
            return _value_with_labels(sides[0], others, same)
        if not other_signs:
            return _equation_as_value(sides, others[0], same)
        return _same_equation(sides, others, same)
    found = compare_sets(expected, given)
    if found is not None:
        return found
    return _same_inequality((sides, signs), (others, other_signs), same)


def _value_with_labels(value, others, same):
    """Says whether each side of the answer has the value, or is a label for it."""
    equal = [_is_same(value, other, same) for other in others]
    if not any(equal):
        return False
    return all(ok or _is_label(other, value) for ok, other in zip(equal, others))


def _is_same(one, other, same):
    try:
        return same(one, other)
    except Unreadable:
        return False


def _is_label(side, value):
    """Says whether a side names the value: "S_{10}" and "a+b" do; "3x" would make an equation."""
    if is_name(side):
        return side.strip() not in _readable_names(value)
    try:
        variables = names(side)
    except Unreadable:
        return False
    if not variables or variables & _readable_names(value):
        return False
    plain = {name for name in variables if not name.endswith("()")}
    absolute = parse(side)[0] == "function" and parse(side)[1] == "abs"
    return absolute or len(plain) > 1 or len(variables) > len(plain)


def _readable_names(text):
    try:
        return {name for name in names(text) if not name.endswith("()")}
    except Unreadable:
        return set()


def _equation_as_value(sides, given, same):
    """Compares a bare value with a reference equation that names the value or works it out."""
    values = [side for side in sides if not is_name(side)]
    if len(values) == len(sides):
        if any(_readable_names(side) for side in sides):
            return False  # It is a real equation, such as that of a plane.
        values = sides[-1:]
    if not values:
        return False
    return all(_is_same(value, given, same) for value in values)


def _same_equation(sides, others, same):
    labels, given_labels = ([s for s in each if is_name(s)] for each in (sides, others))
    values = [side for side in sides if side not in labels]
    given_values = [side for side in others if side not in given_labels]
    if labels and values and given_values:
        # In "x = 5" and "x = 10/2 = 5", the names agree and so do all values.
        if given_labels and not set(_compact(labels)) & set(_compact(given_labels)):
            return _equal_equations(sides, others)
        if all(_is_same(v, g, same) for v in values for g in given_values):
            return bool(given_labels) or not any(_readable_names(g) for g in given_values)
    if not any(_variables(side) for side in sides):
        if any(_variables(other) for other in others):
            return False
        if all(_is_same(side, sides[-1], same) for side in sides):
            return all(_is_same(sides[-1], other, same) for other in others)
    if len(sides) == len(others):
        for order in (others, others[::-1]):
            if all(_is_same(side, other, same) for side, other in zip(sides, order)):
                return True
    return _equal_equations(sides, others)


def _compact(texts):
    return [text.replace(" ", "") for text in texts]


def _variables(text):
    try:
        return names(text)
    except Unreadable:
        return frozenset()


def _equal_equations(sides, others):
    """Says whether the differences of the sides are the same up to a constant factor."""
    if len(sides) != 2 or len(others) != 2:
        return False
    variables = frozenset().union(*(names(v) for s in (*sides, *others) for v in with_signs(s)))
    return proportional(_difference(sides), _difference(others), variables) is not None


def _difference(sides):
    r"""Returns left minus right; for an equation with \pm, the product of both differences."""
    variants = zip(*(_both_signs(side) for side in sides))
    trees = [
        ("add", [parse(left), ("negate", parse(right))]) for left, right in dict.fromkeys(variants)
    ]
    return trees[0] if len(trees) == 1 else ("multiply", trees)


def _both_signs(side):
    variants = with_signs(side)
    return variants if len(variants) == 2 else variants * 2


def _same_inequality(expected, given, same):
    (sides, signs), (others, other_signs) = expected, given
    if not signs or len(signs) != len(other_signs) or "=" in signs or "=" in other_signs:
        return False
    flipped = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
    backwards = [flipped.get(sign, sign) for sign in reversed(other_signs)]
    for order, these in ((others, other_signs), (others[::-1], backwards)):
        if signs == these and all(_is_same(s, o, same) for s, o in zip(sides, order)):
            return True
    if len(signs) != 1 or r"\approx" in (signs[0], other_signs[0]):
        return False
    variables = frozenset().union(*(names(side) for side in (*sides, *others)))
    one, other = _difference(sides), _difference(others)
    factor = proportional(one, other, variables)
    if factor is None:
        return False
    negative = factor.real < 0 if not hasattr(factor, "numerator") else factor < 0
    sign = flipped.get(other_signs[0], other_signs[0]) if negative else other_signs[0]
    return sign == signs[0]
