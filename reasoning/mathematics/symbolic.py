"""Symbolic equality of two mathematical answers by math-verify. Runs in worker processes only.

An answer may take for ever, or all memory: that is what the workers' limits are for, though
numbers too large to write out are refused beforehand. No text is ever evaluated as Python (SymPy's
`sympify` and `parse_expr` would), and answers do not pass which math-verify is too kind to.
"""

import contextlib
import functools
import logging
import math
import re
from fractions import Fraction

import sympy
import sympy.physics.units  # noqa: F401  `simplify` imports it late, and its names are evaluated
from latex2sympy2_extended import latex2sympy2, math_normalization
from math_verify import grader
from sympy.parsing import sympy_parser

from reasoning.mathematics.text import (
    closing_brace,
    is_rounded,
    parse_quantity,
    split_name,
    split_unit,
)

# A pair of answers that takes most paths through the parser and SymPy, to fill their caches.
WARM_UP = (
    r"(x^2+2x+1,\frac{1}{\sqrt{3}},\cot x,y=2x+3)",
    r"((x+1)^2,\frac{\sqrt{3}}{3},\frac{\cos x}{\sin x},y-3=2x)",
)

# We bound the time from outside; math-verify warns about that at every start.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_NORMALIZATION = math_normalization.NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
)
_CONVERSION = latex2sympy2.ConversionConfig(lowercase_symbols=False)

# Of a parsable answer: the parser takes time exponential in some kinds of nesting.
_MAX_BRACKETS = 100
# Digits of a number in an answer, written out; 2^{2006} - 1 is an answer.
_MAX_DIGITS = 20_000

_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|lt|gt)(?![A-Za-z])")
_MEMBER = re.compile(r"\\?[A-Za-z]\w*\\in(?![A-Za-z])")
_SET_ALGEBRA = re.compile(r"\\(?:cup|cap|setminus|begin)(?![A-Za-z])")
_IMAGINARY_UNIT = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])")
_CONNECTIVE = re.compile(r"\\text\{ ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")


class _Unreadable(ValueError):
    """The text is no mathematics that we can read."""


def equivalent(reference: str, answer: str) -> tuple[bool, str]:
    """Whether two canonical texts (`text.canonical`) mean the same, and why.

    Lists and sets are compared without order, tuples and intervals in order and with their
    brackets; elements, equations, inequalities and matrices by math-verify, exactly. A decimal
    equals an irrational number or a repeating fraction if it is that number rounded to at least six
    significant digits.
    """
    try:
        with _no_evaluation():
            if _same(reference, answer):
                return True, f"equivalent to {reference}"
            return False, f"not equivalent to {reference}"
    except _Unreadable as error:
        return False, str(error)
    except Exception as error:  # SymPy raises all sorts on odd input
        return False, f"cannot be compared with {reference}: {type(error).__name__}"


@contextlib.contextmanager
def _no_evaluation():
    """No text reaches Python's `eval` through SymPy, whatever path math-verify takes."""

    def refuse(code, *_):
        raise _Unreadable("text must not be evaluated")

    evaluate, sympy_parser.eval_expr = sympy_parser.eval_expr, refuse
    try:
        yield
    finally:
        sympy_parser.eval_expr = evaluate


def _same(reference, answer):
    """Compares containers, then what they hold."""
    reference, answer = _without_membership(reference, answer)
    if _SET_ALGEBRA.search(reference) or _SET_ALGEBRA.search(answer):
        return _math_verify(reference, answer)
    brackets, expected = _elements(reference)
    joined = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), answer)
    answer_brackets, given = _elements(answer if len(expected) > 1 else joined)
    if len(expected) == len(given) == 1:
        return _same_element(expected[0], given[0])
    if len(expected) == 1 or len(given) == 1:
        # A list and a single element; or an inequality for an interval.
        return bool(_RELATION.search(reference + answer)) and _math_verify(reference, answer)
    if len(expected) != len(given):
        return False
    unordered = {"", "{}"}
    if brackets in unordered and answer_brackets in unordered:
        return _match(expected, given)
    if brackets != answer_brackets and {brackets, answer_brackets} != {"", "()"}:
        return False
    return all(map(_same_element, expected, given))


def _without_membership(reference, answer):
    """Drops "x \\in" from either side; from both only if they name the same."""
    name, other = _MEMBER.match(reference), _MEMBER.match(answer)
    if name and other and name.group() != other.group():
        return reference, answer
    return (
        reference[name.end() :].strip() if name else reference,
        answer[other.end() :].strip() if other else answer,
    )


def _elements(text):
    """The brackets around a tuple, interval or set ("" for a bare list), and its elements."""
    brackets, inner = "", text
    if text.startswith(r"\{") and text.endswith(r"\}"):
        brackets, inner = "{}", text[2:-2]
    elif text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
        brackets, inner = "{}", text[1:-1]
    elif text[:1] in "([" and text[-1:] in ")]" and len(_split(text[1:-1])) > 1:
        brackets, inner = text[0] + text[-1], text[1:-1]
    elif text.startswith(r"\langle") and text.endswith(r"\rangle"):
        brackets, inner = "()", text[len(r"\langle") : -len(r"\rangle")]
    else:
        inner = _CONNECTIVE.sub(",", text)
    elements = [choice for part in _split(inner) for choice in _signs(part.strip()) if choice]
    if not elements and not brackets:
        raise _Unreadable("nothing to compare")
    return brackets, elements


def _split(text):
    """Splits at commas outside all brackets."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[(\[{}\])]|,", text):
        if match.group() == ",":
            if depth == 0:
                parts.append(text[start : match.start()])
                start = match.end()
        else:
            depth += 1 if match.group() in "([{" else -1
            if depth < 0:
                return [text]
    if depth:
        raise _Unreadable("brackets do not balance")
    return [*parts, text[start:]]


def _signs(text):
    """Both values of "a \\pm b"."""
    if r"\pm" not in text and r"\mp" not in text:
        return [text]
    signs = (("+", "-"), ("-", "+"))
    return [text.replace(r"\pm", plus).replace(r"\mp", minus) for plus, minus in signs]


def _match(expected, given):
    """Whether the elements pair up; equality is transitive, so taking the first match is enough."""
    left = list(given)
    for element in expected:
        found = next((i for i, other in enumerate(left) if _same_element(element, other)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_element(reference, answer):
    """One value, point, equation or inequality against another."""
    if any(text[:1] in ("(", "[") and len(_elements(text)[1]) > 1 for text in (reference, answer)):
        return _same(reference, answer)  # a point in a list of points
    if r"\approx" in answer:
        exact, *rounded = answer.split(r"\approx")
        if split_name(f"{exact}=") != ("", f"{exact}="):  # "x \approx 2"
            return _same_element(reference, "=".join([exact, *rounded]))
        return _same_element(reference, exact) and all(
            _is_rounded(part.strip(), exact, min_significant=1) for part in rounded
        )
    reference, unit = split_unit(reference)
    answer, given_unit = split_unit(answer)
    if unit and given_unit and unit != given_unit:
        return False
    name, value = split_name(reference)
    if "=" in reference and not name:  # an equation proper, such as that of a plane
        return _math_verify(reference, answer) if answer.count("=") == 1 else False
    if "=" in answer:
        given_name, given = split_name(answer)
        if given_name and name and given_name != name:
            return False
        # "9*2=18" is fine, "26=18" is two answers: every part must have the value.
        if all(_same_value(value, part) for part in given.split("=")):
            return True
        return bool(name) and answer.count("=") == 1 and _math_verify(reference, answer)
    if _RELATION.search(reference) or _RELATION.search(answer):
        return _math_verify(reference, answer)
    return _same_value(value, answer)


def _same_value(reference, answer):
    return (
        reference == answer
        or _is_rounded(answer, reference)
        or _is_rounded(reference, answer)
        or _math_verify(reference, answer)
    )


def _is_rounded(decimal, exact, **kwargs):
    """Whether `decimal` is a decimal number, and the irrational number `exact` rounded."""
    quantity = parse_quantity(decimal)
    if quantity is None or not quantity.decimals:
        return False
    value = _parse(exact, is_complex=False).doit()
    if not value.is_real or value.is_Rational:
        return False
    digits = max(0, quantity.decimals) + quantity.significant + 30
    return is_rounded(quantity, Fraction(str(value.evalf(digits))), **kwargs)


def _math_verify(reference, answer):
    is_complex = _is_complex(reference, answer)
    return grader.verify(
        _parse(reference, is_complex),
        _parse(answer, is_complex),
        timeout_seconds=None,  # its alarm signals work in no thread; our processes are killed
        allow_set_relation_comp=True,
    )


def _is_complex(reference, answer):
    return bool(_IMAGINARY_UNIT.search(reference + " " + answer))


@functools.lru_cache(maxsize=4096)
def _parse(text, is_complex):
    """A canonical text as a SymPy object, unevaluated."""
    if re.search(r"\d \d", text):
        raise _Unreadable("two numbers next to each other")
    if max(text.count(bracket) for bracket in "([{|^") > _MAX_BRACKETS:
        raise _Unreadable("too many brackets or exponents")
    # A mixed number; the parser itself would also add any two numbers that touch: 2(9), 3\{4\}.
    text = re.sub(r"(?<![\d.])(\d+)(\\frac\{\d+\}\{\d+\})", r"(\1+\2)", text)
    latex = math_normalization.normalize_latex(text.replace(r"\degree", ""), _NORMALIZATION)
    parser = _Parser(is_real=None if is_complex else True, config=_CONVERSION)
    try:
        expression = parser.parse(latex)
    except RecursionError:
        raise _Unreadable("nested too deeply") from None
    except Exception:
        raise _Unreadable(f"cannot be read as mathematics: {text[:60]}") from None
    if isinstance(expression, sympy.Basic):
        _digits(expression)
    if is_complex:
        return expression.subs(sympy.Symbol("i"), sympy.I)
    return expression


def _digits(expression):
    """Bound on the number of digits that writing out the numbers in an expression would take."""
    parts = [_digits(argument) for argument in expression.args]
    digits = max(parts, default=0.0)
    if expression.is_Rational:
        digits = math.log10(max(abs(expression.p), expression.q))
    elif isinstance(expression, sympy.Mul):
        digits = sum(parts)
    elif isinstance(expression, (sympy.Pow, sympy.factorial, sympy.binomial)):
        # b^e has e times the digits of b, n! about n times those of n, and C(n, k) less than n.
        base, count = parts[0], parts[-1] if expression.is_Pow else parts[0]
        digits = max(base, 1.0) * 10 ** min(count, 10.0)
    if digits > _MAX_DIGITS:
        raise _Unreadable("too large a number to write out")
    return digits


class _Parser(latex2sympy2._Latex2Sympy):
    """math-verify's LaTeX parser without what lets wrong answers pass."""

    def parse_number(self, text):
        # Exact, and without SymPy's number parser, which evaluates text.
        quantity = parse_quantity(text)
        if quantity is None:
            raise _Unreadable(f"no number: {text[:60]}")
        return sympy.Rational(quantity.value)

    def convert_atom(self, atom):
        if atom.number_subexpr() and atom.number_subexpr().subexpr():
            raise _Unreadable("a number with a base")  # 52_8 would be read as 52
        return super().convert_atom(atom)

    def convert_binom(self, binom):
        top, bottom = self.convert_expr(binom.upper), self.convert_expr(binom.lower)
        return sympy.binomial(top, bottom, evaluate=False)

    def convert_postfix_list(self, arr, i=0):
        # As a product, always: the parent adds an integer to the number behind it.
        factors = [self.convert_postfix(factor) for factor in arr[i:]]
        if len(factors) > 1 and all(isinstance(f, sympy.Expr) for f in factors):
            return sympy.Mul(*factors, evaluate=False)
        return super().convert_postfix_list(arr, i)
