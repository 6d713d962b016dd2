"""Decides exactly whether two polynomials, or quotients of polynomials, are the same.

`equality` compares values at a few known points, and different polynomials can be made to agree
there. SymPy decides such pairs for certain. It gets trees and never text, so no part of an answer
is evaluated as code.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from reasoning.mathematics.reading.trees import Tree

# Larger expressions are not expanded, which could take for ever; `equality` alone decides.
_MAX_NODES = 80
_MAX_POWER = 16


def same_rational_function(one: Tree, other: Tree) -> bool | None:
    """Says whether two trees are equal as quotients of polynomials with rational coefficients.

    Returns:
      None if a tree is of another kind, such as a root or a sine, or is too large to expand, or if
        neither tree has a variable.
    """
    # Imported here because it takes half a second, and most answers are numbers that need no SymPy.
    import sympy

    try:
        left, right = _convert(one, sympy, [0]), _convert(other, sympy, [0])
    except (_OfAnotherKind, ZeroDivisionError):
        return None
    symbols = left.free_symbols | right.free_symbols
    if not symbols:
        return None
    top, _ = sympy.fraction(sympy.together(left - right))
    return sympy.Poly(top, *symbols).is_zero


class _OfAnotherKind(Exception):
    """The tree is no quotient of polynomials."""


def _convert(tree: Tree, sympy: Any, nodes: list[int]) -> Any:
    nodes[0] += 1
    if nodes[0] > _MAX_NODES:
        raise _OfAnotherKind
    kind = tree[0]

    def parts(trees: Sequence[Any]) -> list[Any]:
        return [_convert(each, sympy, nodes) for each in trees]

    if kind == "number":
        return sympy.Rational(tree[1].numerator, tree[1].denominator)
    if kind == "symbol" and tree[1] != "infty":
        return sympy.Symbol(tree[1])
    if kind == "add":
        return sympy.Add(*parts(tree[1]))
    if kind == "multiply":
        return sympy.Mul(*parts(tree[1]))
    if kind == "negate":
        return -parts(tree[1:])[0]
    if kind == "divide":
        top, bottom = parts(tree[1:])
        if bottom == 0:
            raise ZeroDivisionError
        return top / bottom
    if kind == "power" and (exponent := _whole(tree[2])) is not None:
        base = parts(tree[1:2])[0]
        if base == 0 and exponent <= 0:
            raise ZeroDivisionError
        return base**exponent
    raise _OfAnotherKind


def _whole(tree: Tree) -> int | None:
    if tree[0] == "negate":
        inner = _whole(tree[1])
        return None if inner is None else -inner
    if tree[0] != "number" or tree[1].denominator != 1 or abs(tree[1]) > Fraction(_MAX_POWER):
        return None
    return int(tree[1])
