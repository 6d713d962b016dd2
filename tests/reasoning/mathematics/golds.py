"""Shared code of the modules that make gold answers.

`golds_*.py` hold gold answers of many kinds, with spellings that are equal to them and near misses
that are not.

All are equal or wrong by construction, with Python's integers and fractions; nothing here uses the
grader. A near miss differs by a sign, by one, by a missing part, by an exponent or by a unit.
"""

import dataclasses
import random
from collections.abc import Callable
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class Gold:
    """A reference and answers to it.

    Attributes:
        gold: The reference.
        equal: Answers that mean the same.
        wrong: Answers that do not.
        plain: Whether the answers stand in plain text, not in formulas.
        number: Whether the gold is one plain number.
        words: Whether the answers are words.
    """

    gold: str
    equal: list[str]
    wrong: list[str]
    plain: bool = False
    number: bool = False
    words: bool = False


KINDS: dict[str, Callable[[random.Random], Gold]] = {}


def kind(make):
    """Registers a maker of golds under its name."""
    KINDS[make.__name__] = make
    return make


def frac(value: Fraction, name="frac") -> str:
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return str(value)
    return rf"{sign}\{name}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def signed(value: int) -> str:
    return f"+{value}" if value >= 0 else str(value)


def nonzero(rng, low, high):
    return rng.choice([n for n in range(low, high + 1) if n])


def true_fraction(rng, size=40):
    while True:
        value = Fraction(nonzero(rng, -size, size), rng.randint(2, 25))
        if value.denominator > 1:
            return value


def term(coefficient: int, letters: str, first=False) -> str:
    if coefficient == 0:
        return ""
    sign = "-" if coefficient < 0 else ("" if first else "+")
    size = "" if abs(coefficient) == 1 and letters else str(abs(coefficient))
    return f"{sign}{size}{letters}"
