"""Compares two mathematical answers symbolically. It runs only in worker processes.

This module takes containers (lists, sets, tuples, matrices) apart; other modules of
`reasoning.mathematics` compare their elements as numbers, expressions, equations and sets of real
numbers. An answer may need endless time or memory, so the workers have limits; numbers that are too
large to write out are refused beforehand. No text is ever evaluated as Python.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from reasoning.mathematics.equality import number, parse, same_expression
from reasoning.mathematics.numbers import same_quantity, unit_fault
from reasoning.mathematics.options import GradingOptions
from reasoning.mathematics.reading.quantity import (
    Quantity,
    is_float,
    is_rounded,
    parse_quantity,
    split_unit,
)
from reasoning.mathematics.reading.splitting import (
    RELATION,
    elements,
    inner_elements,
    is_enclosed,
    split_at,
    split_relation,
    with_signs,
)
from reasoning.mathematics.reading.text import canonical
from reasoning.mathematics.reading.trees import Unreadable, worked_out
from reasoning.mathematics.reading.words import is_text, same_words
from reasoning.mathematics.relations import compare_relations, is_name
from reasoning.mathematics.sets import compare_sets, looks_like_set
from reasoning.mathematics.values import Undefined, as_fraction, is_real

# A pair of answers that takes most paths, so that modules are imported and caches filled.
WARM_UP = (
    r"(x^2+2x+1,\frac{1}{\sqrt{3}},\cot x,y=2x+3)",
    r"((x+1)^2,\frac{\sqrt{3}}{3},\frac{\cos x}{\sin x},y-3=2x)",
)

_MATRIX = re.compile(r"(.*?)\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])")
_FOR_ALL = re.compile(
    r",? ?\\text\{ ?for (?:all|any|every)(?: real(?: numbers?)?| integers?)? ?\}\s?\\?[A-Za-z]+$"
)
_MAX_BRACKETS = 100


def equivalent(
    reference: str, answer: str, options: Mapping[str, Any] | None = None
) -> tuple[bool, str]:
    """Says whether two canonical texts (`text.canonical`) mean the same, and why.

    Lists and sets are compared without order, tuples and intervals in order and with their
    brackets.

    Args:
      reference, answer: the canonical texts.
      options: the fields of `GradingOptions`.
    """
    try:
        if _Comparison(GradingOptions(**(options or {}))).same(reference, answer):
            return True, f"equivalent to {reference}"
        return False, f"not equivalent to {reference}"
    except (Unreadable, Undefined) as error:
        return False, f"not comparable with {reference}: {error}"
    except (RecursionError, ArithmeticError, ValueError) as error:
        return False, f"not comparable with {reference}: {type(error).__name__}"


class _Comparison:
    """Compares answers under one set of options."""

    def __init__(self, options):
        self.options = options

    def same(self, reference, answer):
        """Says whether two whole answers are the same."""
        for text in (reference, answer):
            if max(text.count(bracket) for bracket in "([{|^") > _MAX_BRACKETS:
                raise Unreadable("it has too many brackets or exponents")
        reference, answer = _FOR_ALL.sub("", reference), _FOR_ALL.sub("", answer)
        if _compact(reference) == _compact(answer):
            return True
        reference, answer = _without_membership(reference, answer)
        reference, answer = _without_label(reference, answer)
        if looks_like_set(reference) or looks_like_set(answer):
            found = compare_sets(reference, answer)
            if found is not None:
                return found
        matrix = self.same_matrix(reference, answer)
        if matrix is not None:
            return matrix
        return self.same_container(reference, answer)

    def same_container(self, reference, answer):
        """Compares two containers element by element, or two single elements."""
        reference, answer = _expanded(reference, answer), _expanded(answer, reference)
        if self.named_tuple(reference) or self.named_tuple(answer):
            return self.same_element(reference, answer)
        if _is_pm_equation(reference) or _is_pm_equation(answer):
            return compare_relations(reference, answer, self.same_value)
        number = parse_quantity(reference)
        brackets, expected = ("", [reference]) if number else elements(reference)
        joined = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), answer)
        given_brackets, given = elements(answer if len(expected) > 1 else joined)
        if not expected or not given:
            return not expected and not given
        if brackets != given_brackets and len(expected) == len(given) == 1:
            return self.same_element(reference, joined)
        if len(expected) != len(given):
            return False
        if len(expected) == 1:
            return self.same_element(expected[0], given[0])
        expected, given = _with_common_name(expected), _with_common_name(given)
        unordered = {"", "{}"}
        if brackets in unordered and given_brackets in unordered:
            return self.match(expected, given)
        if brackets != given_brackets and {brackets, given_brackets} != {"", "()"}:
            return False
        return all(map(self.same_element, expected, given))

    @staticmethod
    def named_tuple(text):
        """Says whether a text is a tuple with its name before it, such as (x,y)=(1,2)."""
        sides, signs = split_relation(text)
        return signs == ["="] and any(side[:1] in ("(", "[") and "," in side for side in sides)

    def match(self, expected, given):
        """Says whether the elements pair up.

        Equality is transitive, so the first match of each element is enough.
        """
        left = list(given)
        for element in expected:
            found = next((i for i, each in enumerate(left) if self.is_same(element, each)), None)
            if found is None:
                return False
            del left[found]
        return True

    def is_same(self, reference, answer):
        """Compares two elements; an unreadable one is not the same."""
        try:
            return self.same_element(reference, answer)
        except (Unreadable, Undefined):
            return False

    def same_matrix(self, reference, answer):
        """Says whether two matrices are equal entry by entry; None if neither is a matrix."""
        one, other = _MATRIX.fullmatch(reference), _MATRIX.fullmatch(answer)
        if not one and not other:
            return None
        if not one or not other:
            return False
        before = [match[1].replace(" ", "") for match in (one, other)]
        names = [text.removesuffix("=") for text in before]
        for text, name in zip(before, names):
            if text and not (text.endswith("=") and is_name(name)):
                raise Unreadable("it has a matrix in an expression")
        if all(names) and names[0] != names[1]:
            return False
        rows, others = _rows(one[2]), _rows(other[2])
        if [len(row) for row in rows] != [len(row) for row in others]:
            return False
        return all(
            self.same_element(cell, given)
            for row, given_row in zip(rows, others)
            for cell, given in zip(row, given_row)
        )

    def same_element(self, reference, answer):
        """Compares one value, point, equation or inequality with another."""
        if _compact(reference) == _compact(answer):
            return True
        if self.named_tuple(reference) or self.named_tuple(answer):
            return self.same_named_tuple(reference, answer)
        if any(is_enclosed(text) and len(elements(text)[1]) > 1 for text in (reference, answer)):
            return self.same(reference, answer)  # It is a point in a list of points.
        if r"\approx" in answer:
            return self.same_approximation(reference, answer)
        reference, unit = split_unit(reference)
        answer, given_unit = split_unit(answer)
        if unit_fault(unit, given_unit, self.options):
            return False
        if RELATION.search(reference) or RELATION.search(answer):
            sides, signs = split_relation(answer)
            plain = RELATION.search(reference) is None and parse_quantity(reference)
            if plain and signs and not any(_is_result(side, self.options) for side in sides):
                return False
            return compare_relations(reference, answer, self.same_value)
        return self.same_value(reference, answer, final=True)

    def same_named_tuple(self, reference, answer):
        """Compares (x,y)=(1,2) with (1,2), or with itself."""
        texts, labels = [], []
        for text in (reference, answer):
            sides, _ = split_relation(text)
            values = [side for side in sides if not _is_tuple_of_names(side)]
            if len(values) != 1:
                return False
            texts.append(values[0])
            labels.append(_compact("".join(side for side in sides if side not in values)))
        if all(labels) and labels[0] != labels[1]:
            return False
        return self.same(*texts)

    def same_approximation(self, reference, answer):
        r"""Compares an answer such as "2/3 \approx 0.667" with a reference.

        The exact value must be the reference, and the decimals must be that value, rounded.
        """
        exact, *rounded = [part.strip() for part in re.split(r"\\approx(?![A-Za-z])", answer)]
        if is_name(exact):  # "x \approx 2"
            return self.same_element(reference, "=".join([exact, *rounded]))
        if not self.same_element(reference, exact):
            return False
        values, _ = split_at(exact, RELATION)
        value = split_unit(values[-1])[0]
        return all(self.is_decimal_of(split_unit(part)[0], value, 1) for part in rounded)

    def same_value(self, reference, answer, final=False):
        """Compares two texts without relation signs.

        Args:
          final: whether the answer ends here, so that it must not be an unfinished calculation.
        """
        if _compact(reference) == _compact(answer):
            return True
        expected, given = parse_quantity(reference), parse_quantity(answer)
        if expected and given:
            return not same_quantity(expected, given, self.options)
        if is_text(reference) and len(reference) > 1:
            return same_words(reference, answer)
        if expected and (expected.base or expected.percent):
            raise Unreadable("a percentage or a numeral needs a number, not a calculation")
        digits = self.options.min_significant
        if expected and expected.unit:
            reference = reference_number(expected)
        if given and given.unit:
            answer = reference_number(given)
        if expected and final and not given and not self.options.arithmetic:
            if not worked_out(parse(answer)):
                raise Unreadable("it is a calculation, not its result")
        if self.is_decimal_of(answer, reference, digits):
            return True
        if self.is_decimal_of(reference, answer, digits):
            return True
        left, right = (
            _pure(text, quantity) for text, quantity in ((reference, expected), (answer, given))
        )
        return same_expression(left, right)

    def is_decimal_of(self, decimal, exact, min_significant):
        """Says whether `decimal` is a decimal number, namely `exact` rounded to its digits."""
        quantity = parse_quantity(decimal)
        if quantity is None or quantity.decimals is None:
            return False
        plain = parse_quantity(exact)
        if plain is None:
            found = number(exact)
            if found is None or not is_real(found[0]):
                return False
            value = as_fraction(found[0])
        else:
            value = plain.value
        if value == quantity.value:
            return True
        if is_float(quantity, value):
            return True
        if value.denominator == 1 and min_significant > 1:
            return False
        return is_rounded(quantity, value, min_significant)


def reference_number(quantity: Quantity) -> str:
    """Returns the bare number of a quantity as a text."""
    return str(Fraction(quantity.value))


def _pure(text, quantity):
    """Returns a text in a form that the expression reader understands.

    Some quantities are understood only by the number reader.
    """
    return reference_number(quantity) if quantity and not quantity.base else text


def _compact(text):
    return text.replace(" ", "")


def _is_result(side, options):
    """Says whether a side of "9*2 = 18" is a number that is worked out."""
    text = split_unit(side)[0]
    if parse_quantity(text) or options.arithmetic:
        return True
    try:
        return worked_out(parse(text))
    except Unreadable:
        return False


def _is_pm_equation(text):
    r"""Says whether both signs of \pm belong to one curve, as in y = \pm\sqrt{1-x^2}."""
    if r"\pm" not in text or "=" not in text or "," in text:
        return False
    sides, signs = split_relation(text)
    if signs != ["="]:
        return False
    try:
        values = [value for side in sides for value in with_signs(side)]
        return not any(number(value) for value in values)
    except Unreadable:
        return False


def _expanded(text, other):
    """Returns (x,y)=(1,2) as x=1,y=2 if the other side has that form."""
    sides, signs = split_relation(text)
    other_parts = elements(other)[1] if "=" in other and other[:1] not in "([" else []
    if signs != ["="] or len(other_parts) < 2 or not all(is_enclosed(side) for side in sides):
        return text
    names, values = (inner_elements(side) for side in sides)
    if len(names) != len(values) or not all(map(is_name, names)):
        return text
    return ",".join(f"{name}={value}" for name, value in zip(names, values))


def _is_tuple_of_names(text):
    if is_name(text):
        return True
    return is_enclosed(text) and all(is_name(each) for each in elements(text)[1])


def _with_common_name(texts):
    """Returns "x=-1, 3" as "x=-1, x=3"."""
    name, sign, _ = texts[0].partition("=")
    if not sign or not is_name(name) or any(RELATION.search(text) for text in texts[1:]):
        return texts
    return [texts[0], *(f"{name}={text}" for text in texts[1:])]


def _rows(text):
    rows = [row.split("&") for row in re.split(r"\\\\", text) if row.strip()]
    return [[canonical(cell) for cell in row] for row in rows]


_LABELLED_SET = re.compile(r"([A-Za-z](?:_\{?\w\}?)?)=(\\?\{.*\}|\\emptyset)")


def _without_label(reference, answer):
    """Drops "S =" before a set on either side; on both sides only if they have the same name."""
    one, other = _LABELLED_SET.fullmatch(reference), _LABELLED_SET.fullmatch(answer)
    if one and other and one[1] != other[1]:
        return reference, answer
    return one[2] if one else reference, other[2] if other else answer


_MEMBER = re.compile(r"\\?[A-Za-z]\w*\\in(?![A-Za-z])")


def _without_membership(reference, answer):
    r"""Drops "x \in" on either side; on both sides only if they have the same name."""
    name, other = _MEMBER.match(reference), _MEMBER.match(answer)
    if name and other and name.group() != other.group():
        return reference, answer
    return (
        reference[name.end() :].strip() if name else reference,
        answer[other.end() :].strip() if other else answer,
    )
