"""Tests the exact comparison of polynomials that are built to agree at the known points."""

from fractions import Fraction

import pytest

from reasoning.mathematics.equality import parse, points, same_expression
from reasoning.mathematics.exact import same_rational_function


@pytest.mark.parametrize(
    "one, other, same",
    [
        (r"x^2+2x+1", r"(x+1)^2", True),
        (r"\frac{1}{x}+\frac{1}{y}", r"\frac{x+y}{xy}", True),
        (r"x^{-2}", r"\frac{1}{x^2}", True),
        (r"(a+b)^{12}", r"(b+a)^{12}", True),
        (r"x^2-1", r"x^2+1", False),
        (r"\frac{x^2-1}{x-1}", r"x-1", False),
        (r"\sin x", r"\sin x", None),
        (r"\sqrt{x}", r"x", None),
        (r"3", r"3", None),
        (r"x^{99}", r"x^{99}", None),
    ],
)
def test_quotients_of_polynomials_are_decided(one, other, same):
    assert same_rational_function(parse(one), parse(other)) is same


def test_a_polynomial_that_vanishes_at_every_point_is_not_zero():
    """What a model could write that knew the points: right at each, and still another answer."""
    chosen = [point["x"] for point in points(frozenset("x"))]

    def term(value: Fraction) -> str:
        return rf"(x-({value.numerator}/{value.denominator}))"

    built = (
        "x+"
        + "".join(term(value) for value in chosen[:5])
        + "".join(term(value) for value in chosen[5:])
    )
    assert not same_expression("x", built)
