"""Defines trees of mathematical expressions, as `latex.read` makes them.

They are plain tuples, `(kind, ...)`:

    ("number", Fraction)              ("symbol", name)            ("constant", "pi" | "e" | "i")
    ("add", terms)                    ("multiply", factors)       ("divide", top, bottom)
    ("power", base, exponent)         ("root", argument, degree)  ("negate", argument)
    ("mixed", whole, fraction)        ("degrees", argument)
    ("function", name, arguments)     a known one, such as sin, log, factorial, abs
    ("unknown", name, arguments)      f(x), a_n: equals only itself
    ("bound", "sum" | "prod" | "int" | "lim", variable, bounds, body)
"""

import re
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]


class Unreadable(ValueError):
    """The text is no mathematics that this package can read."""


def worked_out(tree: Tree) -> bool:
    """Says whether a tree is a number in some notation, and not an unfinished calculation.

    A fraction, a power, a root, a factorial and 3 * 10^8 are notations; sums and products are not.
    """
    kind = tree[0]
    if kind in ("number", "constant"):
        return True
    if kind == "multiply":
        scientific = tree[1][1][0] == "power" and tree[1][1][1] == number_tree(10)
        return scientific and all(worked_out(factor) for factor in tree[1])
    if kind == "divide":
        return all(_signed_number(part) for part in tree[1:])
    if kind in ("negate", "mixed", "degrees", "power", "root"):
        return all(worked_out(part) for part in tree[1:]) or kind == "mixed"
    return kind == "function" and all(worked_out(argument) for argument in tree[2])


def _signed_number(tree):
    if tree[0] == "multiply":  # 2 pi
        return any(factor[0] == "constant" for factor in tree[1])
    return tree[0] in ("number", "constant") or (tree[0] == "negate" and _signed_number(tree[1]))


def number_tree(text: str | int) -> Tree:
    """Returns the tree of a number that is written with digits, commas and a point."""
    if isinstance(text, int):
        return ("number", Fraction(text))
    whole, _, decimals = text.partition(".")
    digits = re.sub("[, ]", "", whole or "0") + decimals
    return ("number", Fraction(int(digits), 10 ** len(decimals)))
