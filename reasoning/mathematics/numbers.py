"""Compares plain numbers: value, percent, base, unit and rounding."""

import re
from fractions import Fraction

from reasoning.mathematics.options import GradingOptions
from reasoning.mathematics.reading import units
from reasoning.mathematics.reading.quantity import (
    Quantity,
    is_float,
    is_rounded,
    parse_quantity,
    terminates,
)

OTHER_NUMBER = "another number"
_RATIO = re.compile(r"\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+")
_TO = re.compile(r"(?<=[\d\s])\s*(?:\\text\{\s*to\s*\}|\bto\b)\s*(?=\d)")
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)((?: ?[ap]\.?m\.?| ?\\text\{ ?[ap]\.?m\.?\})?)", re.I)
_NUMERAL = re.compile(r"(?:\\text\{)?([0-9A-Z]+)\}?(?:_\{?(?:\\text\{)?(\d{1,2})\}?\}?)?")
_WORDS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
        " fifteen sixteen seventeen eighteen nineteen".split()
    )
} | {
    word: 10 * value
    for value, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2
    )
}
_LARGE_WORDS = {"thousand": 1000, "million": 10**6, "billion": 10**9}


def same_quantity(expected: Quantity, given: Quantity, options: GradingOptions) -> str:
    """Says why the given number is not the expected one; returns "" if it is."""
    values = {given.value}
    if given.percent != expected.percent:
        # The question may have asked for percent, so 50% is both 50 and 0.5.
        scaled = given.value / 100 if given.percent else given.value * 100
        values = {scaled} if options.percent == "fraction" else {given.value, scaled}
    if not any(_same_number(expected, given, value, options) for value in values):
        return OTHER_NUMBER
    if expected.base != given.base and given.base:
        return f"in base {given.base}"
    return unit_fault(expected.unit, given.unit, options)


def unit_fault(expected: str, given: str, options: GradingOptions) -> str:
    """Says why the unit of an answer is wrong; returns "" if it is right."""
    if options.units == "ignored":
        return ""
    if expected and given and not units.agree(expected, given):
        return f"in {given}"
    if expected and not given and options.units == "required":
        return f"without the unit {expected}"
    return ""


def _same_number(expected, given, value, options):
    digits = options.min_significant
    return (
        value == expected.value
        or is_float(given, expected.value)
        or (not terminates(expected.value) and is_rounded(given, expected.value, digits))
        or (not terminates(given.value) and is_rounded(expected, given.value, digits))
    )


def compare_ratios(expected: str, given: str) -> bool | None:
    """Compares two ratios or times of day; returns None if `expected` is neither.

    4:6 is 2:3 and 2/3. A time such as 12:30 equals only itself, because it could also be a ratio.
    """
    expected, given = _TO.sub(":", expected), _TO.sub(":", given)
    clock, other = _CLOCK.fullmatch(expected), _CLOCK.fullmatch(given)
    if clock:
        half, other_half = _half_of_day(clock), _half_of_day(other)
        return (
            bool(other)
            and int(clock[1]) == int(other[1])
            and clock[2] == other[2]
            and (half == other_half or not (half and other_half))
        )
    if not _RATIO.fullmatch(expected):
        return None
    parts = [Fraction(part) for part in expected.split(":")]
    if _RATIO.fullmatch(given):
        others = [Fraction(part) for part in given.split(":")]
        if len(parts) != len(others) or 0 in parts + others:
            return parts == others
        return len({part / other for part, other in zip(parts, others)}) == 1
    quantity = parse_quantity(given)
    if quantity is None or quantity.unit or len(parts) != 2 or not parts[1]:
        return False
    whole = quantity.decimals is not None and quantity.value.denominator == 1
    return not whole and quantity.value == parts[0] / parts[1]


def _half_of_day(clock):
    """Returns "am", "pm" or "" for a matched time."""
    return re.sub(r"\\text|[^apm]", "", clock[3].lower()) if clock else ""


def compare_numerals(expected: str, given: str) -> bool | None:
    """Compares two numerals with a base and letters as digits, such as 1F_{16}.

    Returns None if `expected` is no such numeral.
    """
    numeral, other = _NUMERAL.fullmatch(expected), _NUMERAL.fullmatch(given)
    if not numeral or not numeral[2] or numeral[1].isdigit():
        return None
    return bool(other) and numeral[1] == other[1] and other[2] in (None, numeral[2])


def spelled_number(text: str) -> str:
    """Returns the digits of a number in English words, or the text itself.

    It reads words such as "one hundred twenty-one".
    """
    words = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).lower().replace("-", " ").split()
    negative = words[:1] in (["minus"], ["negative"])
    total = current = 0
    used = 0
    for word in words[negative:]:
        if word in _WORDS:
            current += _WORDS[word]
        elif word == "hundred" and used:
            current *= 100
        elif word in _LARGE_WORDS and used:
            total, current = total + current * _LARGE_WORDS[word], 0
        elif word != "and" or not used:
            break
        used += 1
    if not used:
        return text
    rest = " ".join(words[negative + used :])
    return f"{'-' if negative else ''}{total + current}{' ' + rest if rest else ''}"
