"""Tests reading and evaluating expressions against Python's own arithmetic and mpmath."""

import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning.mathematics.equality import number, parse, proportional, same_expression
from reasoning.mathematics.reading.latex import read
from reasoning.mathematics.reading.quantity import is_float, is_rounded, parse_quantity
from reasoning.mathematics.reading.text import canonical
from reasoning.mathematics.reading.trees import Unreadable
from reasoning.mathematics.reading.units import read_unit
from reasoning.mathematics.sets import read_set

NUMBERS = st.fractions(max_denominator=50).filter(lambda v: abs(v) < 1000)


def _text(value):
    return rf"({value.numerator}/{value.denominator})"


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, st.integers(1, 6))
def test_rational_arithmetic_is_exact(a, b, c, n):
    text = rf"{_text(a)}+{_text(b)}\cdot{_text(c)}-{_text(a)}^{n}"
    value, _ = number(text)
    assert isinstance(value, Fraction) and value == a + b * c - a**n


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200))
def test_irrational_values_agree_with_mpmath(a, b):
    value, _ = number(rf"\sqrt{{{a}}}+\ln {b}-\sin {a}\degree+\pi/{b}")
    with mpmath.workdps(40):
        expected = mpmath.sqrt(a) + mpmath.log(b) - mpmath.sin(mpmath.radians(a)) + mpmath.pi / b
        assert abs(value - expected) < mpmath.mpf(10) ** -30


@pytest.mark.parametrize(
    "one, other",
    [
        ("1-2^{-2005}", "1-2^{-2006}"),
        (r"\sqrt{2}", r"\sqrt{2}+10^{-200}"),
        (r"e^{-30}", r"e^{-30}+10^{-90}"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        ("2024!", "2024!+1"),
        (r"\pi", r"\frac{355}{113}"),
        (r"10^{-20}x", r"10^{-21}x"),
    ],
)
def test_no_difference_is_too_small_to_see(one, other):
    assert same_expression(one, one) and not same_expression(one, other)


def test_what_cancels_is_zero():
    assert number(r"\sin \pi")[0] == 0 and number(r"\sqrt{8}-2\sqrt{2}")[0] == 0
    assert number(r"\sqrt{3+2\sqrt{2}}-1-\sqrt{2}")[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        "x+", "3,4", "2 3", "3'", "x_", "^2", "(x", "x)", r"\foo x", r"x\ldots", r"\frac{1}",
        "x==2", r"\sum_{k=1}^n", "A@B", r"\text{apples}", "3!!", "x^2^3", r"\int f(x)", "|x",
        r"5\mod 3",
    ],
)  # fmt: skip
def test_what_is_unknown_is_never_dropped(text):
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "99999999!", r"\binom{10^{9}}{5}", "(" * 500 + "1"]
)
def test_too_large_numbers_and_too_deep_nesting_are_refused(text):
    assert number(text) is None


def test_binding():
    assert number("-2^2")[0] == -4 and number("2/3/4")[0] == Fraction(1, 6)
    assert number(r"2\frac{1}{3}")[0] == Fraction(7, 3) and number("1/2*3")[0] == Fraction(3, 2)
    assert number(r"\sqrt[3]{-8}")[0] == -2 and number(r"\binom{5}{2}")[0] == 10
    assert number(r"\sum_{k=1}^{10}k^2")[0] == 385 and number(r"\prod_{k=1}^{5}k")[0] == 120
    assert same_expression(r"\sin 2x", r"2\sin x\cos x") and not same_expression(
        r"\sin 2x", r"2\sin x"
    )
    assert same_expression(r"\sin^2 x", r"(\sin x)^2") and same_expression("f(x)+1", "1+f(x)")


def test_equations_are_the_same_up_to_a_constant_factor_only():
    variables = frozenset("xy")
    one = parse("x^2+y^2-4")
    assert proportional(one, parse("8-2x^2-2y^2"), variables) == Fraction(-1, 2)
    assert proportional(one, parse("x(x^2+y^2-4)"), variables) is None
    assert proportional(one, parse("0"), variables) is None


def test_sets():
    assert read_set(r"(-\infty,2)\cup(1,5]").pieces == ((-math.inf, True, 5, False),)
    assert read_set(r"1<x\le 3").pieces == read_set("(1,3]").pieces
    assert read_set(r"x\ne 0").pieces == read_set(r"\mathbb{R}\setminus\{0\}").pieces
    assert read_set("|x|<2").pieces == read_set("(-2,2)").pieces
    assert read_set("-2x<4").pieces == read_set(r"x>-2").pieces
    assert read_set(r"[1,2]\cap[3,4]").pieces == () and read_set("x^2<4") is None


def test_rounding_never_applies_to_integers():
    assert is_rounded(parse_quantity("0.333333"), Fraction(1, 3), 6)
    assert not is_rounded(parse_quantity("333333"), Fraction(1_000_000, 3), 6)
    assert is_float(parse_quantity("17.333333333333332"), Fraction(52, 3))
    assert not is_float(parse_quantity("17.33333333333332"), Fraction(52, 3))
    assert not is_float(parse_quantity("5.000000000000001"), Fraction(5))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.from_regex(r"\A\d{0,3}\Z"), st.from_regex(r"\A\d{1,4}\Z"))
def test_repeating_decimals(whole, once, block):
    value = parse_quantity(rf"{whole}.{once}\overline{{{block}}}").value
    digits = f"{whole}{once}{block * 40}"
    exact = Fraction(int(digits), 10 ** (len(digits) - len(str(whole))))
    assert abs(value - exact) <= Fraction(1, 10 ** (len(once) + 39 * len(block)))


@pytest.mark.parametrize(
    "spellings",
    [
        (" cm^2", r"\text{cm}^2", r"\text{square cm}", " square centimeters", " cm squared"),
        (
            r"\text{m/s}",
            " m/s",
            " meters per second",
            r"\frac{\text{m}}{\text{s}}",
            r"\text{m s^-1}",
        ),
        (" hrs", " hours", " h", r"\text{hour}"),
        (r"\degree\text{C}", " degrees Celsius"),
    ],
)
def test_units_have_one_spelling(spellings):
    assert len({read_unit(text) for text in spellings}) == 1


def test_words_that_change_a_number_are_no_units():
    for word in ("dozen", "million", "squared", "thousandths", "or so", "couples", "x", "wrong"):
        assert read_unit(f" {word}") is None


def test_root_signs_and_functions_take_whole_numbers():
    assert canonical("√31") == r"\sqrt{31}" and canonical("sqrt 13") == r"\sqrt{13}"
    assert canonical("**73** apples") == "73 apples" and canonical("x**10") == "x^{10}"
