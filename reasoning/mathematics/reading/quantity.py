"""Reads plain numbers with their units, percent signs and currencies, exactly.

Regular expressions read the numbers in time linear in the length; nothing is evaluated.
"""

import dataclasses
import re
from fractions import Fraction

from reasoning.mathematics.reading.units import CURRENCIES, CURRENCY_PATTERN, read_unit


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number that is written out, with the text next to it.

    Attributes:
      value: the number as written, so 50 for "50%".
      decimals: the number of digits after the point, or None if the number is no plain decimal.
      significant: the number of significant digits written.
      percent: whether a percent sign follows.
      base: the subscript, as in 52_8, or "".
      unit: the unit in one spelling, or "".
    """

    value: Fraction
    decimals: int | None = None
    significant: int = 0
    percent: bool = False
    base: str = ""
    unit: str = ""


# No real answer has more digits than this, and Python converts this many at once.
_MAX_DIGITS = 400
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ ]\d{3})+|\d+)"
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "lakh": 10**5, "crore": 10**7, "dozen": 12, "万": 10**4, "亿": 10**8, "億": 10**8,
}  # fmt: skip
_SCALE = "|".join(_SCALES)
_QUANTITY = re.compile(
    rf"""
    (?P<sign>[+-]?) [ ]? (?P<currency>{CURRENCY_PATTERN})? [ ]? (?P<sign2>[+-]?)
    (?:
        (?P<whole>{_INTEGER})? [ ]?
        \\frac\{{(?P<up>-?{_INTEGER})\}}\{{(?P<down>-?{_INTEGER})\}}
      | (?:(?P<whole2>{_INTEGER})[ ])? (?P<up2>{_INTEGER})/(?P<down2>{_INTEGER})
      | (?P<head>{_INTEGER})?\.(?P<once>\d*)
        (?:\\overline(?:\{{(?P<block>\d+)\}}|(?P<block2>\d)) | \((?P<block3>\d+)\))
      | (?P<integer>{_INTEGER})? (?P<fraction>\.\d*)?
        (?: (?P<dots>\\ldots)
          | (?:[eE]|[ ]?(?:\\times|\\cdot|\*|x)[ ]?10\^) (?P<exponent>[+-]?\d+|\{{[+-]?\d+\}})
        )?
    )
    (?P<ordinal>(?:\^)?\{{?(?:\\text\{{(?:st|nd|rd|th)\}}|(?:st|nd|rd|th)\b)\}}?)?
    (?: _ (?:\{{\\text\{{)? (?P<base>\d|\{{\d+\}}) )?
    (?P<scale>[ ]?(?:\\text\{{[ ]?(?:{_SCALE})s?\}}|(?:{_SCALE})s?(?![A-Za-z])))?
    (?P<percent>[ ]*(?:%|\\text\{{[ ]*(?:%|percent(?:age)?|pct)[ ]*\}}
                   |(?:percent(?:age)?|pct)(?![A-Za-z])))?
    (?P<unit>.*)
    """,
    re.VERBOSE | re.DOTALL,
)
# Matches digits that repeat for ever, as in "0.333...": one digit three times, or a longer block
# twice.
_REPEATED = re.compile(r"(\d*?)(?:(\d)\2{2,}|(\d{2,12}?)\3+)")


def parse_quantity(text: str) -> Quantity | None:
    """Returns the quantity that a canonical text spells out, or None if it is anything else."""
    match = _QUANTITY.fullmatch(text)
    if not match or sum(c.isdigit() for c in text) > _MAX_DIGITS:
        return None
    unit = read_unit(match["unit"])
    if unit is None or (match["base"] and (unit or match["percent"] or match["scale"])):
        return None
    if match["currency"]:
        if match["unit"] and not _goes_with_money(match["unit"], CURRENCIES[match["currency"]]):
            return None
        unit = CURRENCIES[match["currency"]]  # The thing that money pays for is not compared.
    signs = match["sign"] + match["sign2"]
    number = _number(match) if len(signs) < 2 else None
    if number is None:
        return None
    value, decimals, significant = number
    scale = re.search(_SCALE, match["scale"] or "")
    if scale:
        value *= _SCALES[scale[0]]
        decimals = None
    if match["ordinal"] and value.denominator != 1:
        return None
    return Quantity(
        value=-value if "-" in signs else value,
        decimals=decimals,
        significant=significant,
        percent=bool(match["percent"]),
        base=(match["base"] or "").strip("{}"),
        unit=unit,
    )


def _goes_with_money(text, currency):
    """Says whether the words after "$5" fit the currency.

    Its own name, "per day" and "total" do; "$5 cents" does not.
    """
    unit = read_unit(text)
    names = set(CURRENCIES.values()) | {"cent"}
    return unit is not None and (unit.split()[0] == currency or unit.split()[0] not in names)


def _number(match):
    """Returns (value, decimals, significant digits) of a match without its sign, or None."""
    up, down = match["up"] or match["up2"], match["down"] or match["down2"]
    if up:
        whole = match["whole"] or match["whole2"]
        if integer(down) == 0 or (whole and "-" in up + down):
            return None
        return Fraction(integer(up), integer(down)) + (integer(whole) if whole else 0), None, 0
    block = match["block"] or match["block2"] or match["block3"]
    if block:
        return _repeating(match["head"], match["once"], block), None, 0
    whole, fraction = match["integer"] or "", (match["fraction"] or "")[1:]
    if not whole and not fraction:
        return None
    if match["dots"]:
        repeated = _REPEATED.fullmatch(fraction)
        if not repeated:
            return None
        return _repeating(whole, repeated[1], repeated[2] or repeated[3]), None, 0
    exponent = int((match["exponent"] or "0").strip("{}"))
    if abs(exponent) > _MAX_DIGITS:
        return None
    decimals = len(fraction) - exponent
    digits = re.sub("[, ]", "", whole) + fraction
    return Fraction(int(digits)) / Fraction(10) ** decimals, decimals, len(digits.lstrip("0"))


def _repeating(whole, once, block):
    """Returns the value of whole.once(block)(block)(block)..."""
    head = Fraction(integer((whole or "0") + once), 10 ** len(once))
    return head + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(once))


def integer(digits: str) -> int:
    """Returns the integer that digits with thousands separators spell."""
    return int(re.sub("[, ]", "", digits))


def is_rounded(decimal: Quantity, exact: Fraction, min_significant: int) -> bool:
    """Says whether a decimal is another number rounded, or cut off, at the digits it gives.

    A number without digits after its point counts as exact: no integer stands for another number.
    """
    if decimal.decimals is None or decimal.decimals < 1 or decimal.significant < min_significant:
        return False
    # Both numbers are counted in units of the last digit given.
    scale = Fraction(10) ** decimal.decimals
    given, wanted = abs(decimal.value) * scale, abs(exact) * scale
    same_sign = (decimal.value < 0) == (exact < 0)
    return same_sign and (abs(given - wanted) <= Fraction(1, 2) or given <= wanted < given + 1)


def is_float(decimal: Quantity, exact: Fraction) -> bool:
    """Says whether a decimal is a number as a program prints it: right except for the last bits."""
    if decimal.decimals is None or decimal.decimals < 1 or not 15 <= decimal.significant <= 17:
        return False
    return exact.denominator != 1 and abs(decimal.value - exact) <= abs(exact) * Fraction(4, 2**53)


def terminates(fraction: Fraction) -> bool:
    """Says whether a fraction is a finite decimal.

    Its denominator then has only the prime factors 2 and 5.
    """
    denominator = fraction.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


_TRAILING_UNIT = re.compile(
    r"(?:\\frac\{\\text\{[^{}]*\}\}\{\\text\{[^{}]*\}(?:\^\{?\d\}?)?\}"
    r"|(?:\\degree[ ]?)?\\text\{[^{}]*\}(?:\^(?:\{\d\}|\d))?"
    r"(?:[ ]?/[ ]?\\text\{[^{}]*\}(?:\^(?:\{\d\}|\d))?)?"
    r"|\\degree[ ]?[CF]?"
    r"|(?<![A-Za-z\\])(?:(?:square|sq|cubic)[ ])?[A-Za-z]{2,12}(?:\^(?:\{[23]\}|[23]))?"
    r"(?:/[A-Za-z]{1,12})?)$"
)


def split_unit(text: str) -> tuple[str, str]:
    r"""Splits `"8\pi\text{ cm}"` into `("8\pi", "cm")`; the unit is empty if there is none.

    It takes off only units of measure and money, because other words may change the text before
    them.
    """
    match = _TRAILING_UNIT.search(text)
    if not match or not match.start():
        return text, ""
    before, unit = text[: match.start()], match.group()
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", before) and "degree" in unit:
        return text, ""  # The degrees belong to the angle.
    unit = read_unit(unit if unit[0] == "\\" else f" {unit}", known_only=True)
    return (before.rstrip(), unit) if unit else (text, "")
