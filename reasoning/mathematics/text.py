"""One spelling for mathematical answers, and plain quantities read exactly. Nothing is evaluated.

`canonical` maps the many ways to write an answer (LaTeX, Unicode, Markdown, plain text) to one;
`parse_quantity` reads numbers with units, percent signs and currencies, by regular expressions that
take time linear in the length.
"""

import dataclasses
import re
import unicodedata
from fractions import Fraction

# Signs with a LaTeX or ASCII name.
_SIGNS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/", "√": r"\sqrt ", "∞": r"\infty ",
    "π": r"\pi ", "°": r"\degree ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "≈": r"\approx ", "∅": r"\emptyset ",
    "’": "'", "‘": "'", "“": '"', "”": '"', "，": ", ", "、": ", ", "θ": r"\theta ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "…": r"\ldots ",
})  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾", "0123456789+-()")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_GROUP = r"\{[^{}]*\}"
_LATEX_SPELLINGS = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])"), ""),
    (
        re.compile(r"\\(?:math(?:rm|bf|it)|text(?:rm|bf|it)|mbox|operatorname)(?=\s*\{)"),
        r"\\text",
    ),
    (re.compile(r"\\!\s*|\{,\}(?=\d)\s*"), lambda match: "," if "," in match.group() else ""),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~"), " "),
    (
        re.compile(r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\}|\\degree(?![A-Za-z]))"),
        r"\\degree ",
    ),
    (re.compile(r"(?<!\\)\\([%$#&])"), r"\1"),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge "),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne "),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\*\*"), "^"),
    # Functions and constants as plain words; a word in \text{...} was taken out before.
    (
        re.compile(
            r"(?<![\\A-Za-z])(pi|sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|theta)"
            r"(?![A-Za-z])"
        ),
        r"\\\1 ",
    ),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    # x^12 means x^{12} to everyone but LaTeX.
    (re.compile(r"\^\s*(-?\d{2,}|-\d)"), r"^{\1}"),
    # \frac12, \frac1{2}, \frac{1}2
    (
        re.compile(rf"\\frac\s*({_GROUP}|[\dA-Za-z])\s*({_GROUP}|[\dA-Za-z])"),
        lambda match: rf"\frac{{{_unbraced(match[1])}}}{{{_unbraced(match[2])}}}",
    ),
    (re.compile(r"\\sqrt\s*(?:(\d)(?!\d)|\(([^()]*)\))"), r"\\sqrt{\1\2}"),
]
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WRAPPED = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\\[(.*)\\\]",
        r"\\\((.*)\\\)",
        r"\*\*([^*]*)\*\*",
        r"`([^`]*)`",
    )
]
_DOLLAR = re.compile(r"(?<!\\)\$")
_BOXED = re.compile(r"\\f?boxed\s*\{")
_BRACES = re.compile(r"\\[{}\\]|[{}]")
# Spaces matter only between two letters or digits ("1 8", "\cot x"), and behind a comma, where they
# tell a list of numbers from the thousands of one.
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9,]) | (?![A-Za-z0-9])|(?<=,) (?!\d)")


def canonical(text: str) -> str:
    """The text in one spelling, unwrapped from `$...$`, `\\boxed{...}`, Markdown and full stops."""
    text = _plain_characters(text)
    text = unwrap(text)
    # What \text{...} holds is language: keep the rules below away from it.
    words: list[str] = []

    def take_out(match):
        words.append(match[1])
        return f"\x00{len(words) - 1}\x00"

    for pattern, replacement in _LATEX_SPELLINGS[:3]:
        text = pattern.sub(replacement, text)
    text = _TEXT.sub(take_out, text)
    for pattern, replacement in _LATEX_SPELLINGS[3:]:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    text = text.replace(" ,", ",")
    text = _LOOSE_SPACE.sub("", text)
    text = re.sub("\x00(\\d+)\x00", lambda match: rf"\text{{{words[int(match[1])].strip()}}}", text)
    return text.lstrip(" ,;:=").rstrip(" .,;:=")


def unwrap(text: str) -> str:
    """Takes away what encloses the whole text: dollar signs, boxes, bold, quotes, full stops."""
    for _ in range(8):  # layers; more is no answer but an attack
        before = text
        text = text.strip().rstrip(".").strip()
        for pattern in _WRAPPED:
            match = pattern.fullmatch(text)
            if match:
                text = match[1]
        # "$18$ dollars": signs in pairs are LaTeX's, a single one is money.
        if len(_DOLLAR.findall(text)) % 2 == 0:
            text = _DOLLAR.sub("", text)
        match = _BOXED.match(text)
        if match and closing_brace(text, match.end() - 1) == len(text) - 1:
            text = text[match.end() : -1]
        if text == before:
            break
    return text


def closing_brace(text: str, opening: int) -> int | None:
    """Index of the brace that closes the one at `opening`, or None."""
    depth = 0
    for brace in _BRACES.finditer(text, opening):
        if brace.group() == "{":
            depth += 1
        elif brace.group() == "}":
            depth -= 1
            if depth == 0:
                return brace.start()
    return None


def _plain_characters(text):
    """ASCII digits and signs for their Unicode look-alikes, and no control characters."""
    text = _CONTROL.sub("", text)
    if text.isascii():
        return text
    # Runs of super- and subscripts first: they would decompose to digits on the line.
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub("[₀-₉]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    return "".join(_plain_character(c) for c in text)


def _plain_character(c):
    if c.isascii():
        return c
    sign = c.translate(_SIGNS)
    if sign != c:
        return sign
    category = unicodedata.category(c)
    if category == "Nd":  # decimal digits of any script
        return str(unicodedata.digit(c))
    if category == "Zs":
        return " "
    if category == "Cf":  # invisible: joiners, direction marks
        return ""
    if "！" <= c <= "～":  # full-width ASCII
        return chr(ord(c) - 0xFEE0)
    if unicodedata.decomposition(c).startswith("<fraction>"):
        value = Fraction(unicodedata.numeric(c)).limit_denominator(10)
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    return c


def _unbraced(group):
    return group[1:-1] if group.startswith("{") else group


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number that was written out, with what stood next to it.

    Attributes:
        value: The number as written, so 50 for "50%".
        decimals: Digits after the point, or None if the number is no plain decimal.
        significant: Number of significant digits written.
        percent: Whether a percent sign followed.
        base: The subscript, as in 52_8, or "".
        unit: The unit in one spelling, or "".
    """

    value: Fraction
    decimals: int | None = None
    significant: int = 0
    percent: bool = False
    base: str = ""
    unit: str = ""


_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen"}
# More digits than any answer has, and few enough to convert at once.
_MAX_DIGITS = 400
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ ]\d{3})+|\d+)"
_QUANTITY = re.compile(
    rf"""
    (?P<sign>[+-]?) (?P<currency>[$€£¥]?) (?P<sign2>[+-]?)
    (?:
        (?P<whole>{_INTEGER})? [ ]? \\frac\{{(?P<up>-?{_INTEGER})\}}\{{(?P<down>{_INTEGER})\}}
      | (?:(?P<whole2>{_INTEGER})[ ])? (?P<up2>{_INTEGER})/(?P<down2>{_INTEGER})
      | (?P<integer>{_INTEGER})? (?P<fraction>\.\d*)?
        (?: (?:[eE]|(?:\\times|\\cdot|\*|x)[ ]?10\^) (?P<exponent>[+-]?\d+|\{{[+-]?\d+\}}) )?
    )
    (?: _ (?P<base>\d|\{{\d+\}}) )?
    (?P<percent>\s*(?:%|\\text\{{\s*percent\s*\}}|percent\b))?
    (?P<unit>.*)
    """,
    re.VERBOSE | re.DOTALL,
)
# "x =", "f(2) =", "\angle ABC =": a name without any number of its own that could be an answer.
_NAME = re.compile(r"(?:\\?[A-Za-z]++(?:_\{?\w\}?)?|\\text\{[^{}]*\}|\([^()=]{1,12}\)| ){1,8}")


def split_name(text: str) -> tuple[str, str]:
    """`"x=5"` as `("x", "5")`; the name is empty where there is none, or where it is no name."""
    name, sign, value = text.partition("=")
    if sign and 0 < len(name) < 60 and _NAME.fullmatch(name.strip()):
        return name.strip(), value.strip()
    return "", text


def parse_quantity(text: str) -> Quantity | None:
    """The quantity a canonical text spells out, or None where it is anything else."""
    match = _QUANTITY.fullmatch(text)
    if not match or sum(c.isdigit() for c in text) > _MAX_DIGITS:
        return None
    unit = _read_unit(match["unit"])
    if unit is None:
        return None
    if match["currency"]:
        unit = _CURRENCIES[match["currency"]]  # what the money is for is not compared
    negative = (match["sign"] + match["sign2"]).count("-") % 2
    if len(match["sign"] + match["sign2"]) > 1:
        return None
    up, down = match["up"] or match["up2"], match["down"] or match["down2"]
    decimals, significant = None, 0
    if up:
        if _integer(down) == 0:
            return None
        whole = match["whole"] or match["whole2"]
        if whole and "-" in up:
            return None
        value = Fraction(_integer(up), _integer(down)) + (_integer(whole) if whole else 0)
    else:
        integer, fraction = match["integer"] or "", (match["fraction"] or "")[1:]
        if not integer and not fraction:
            return None
        exponent = int((match["exponent"] or "0").strip("{}"))
        if abs(exponent) > _MAX_DIGITS:
            return None
        decimals = len(fraction) - exponent
        digits = re.sub("[, ]", "", integer) + fraction
        significant = len(digits.lstrip("0"))
        value = Fraction(int(digits)) / Fraction(10) ** decimals
    return Quantity(
        value=-value if negative else value,
        decimals=decimals,
        significant=significant,
        percent=bool(match["percent"]),
        base=(match["base"] or "").strip("{}"),
        unit=unit,
    )


# Fewest significant digits for a decimal to stand for a number that is no finite decimal.
_MIN_SIGNIFICANT = 6


def is_rounded(decimal: Quantity, exact: Fraction, min_significant: int = _MIN_SIGNIFICANT) -> bool:
    """Whether a decimal is another number rounded, or cut off, at the digits it gives."""
    if decimal.decimals is None or decimal.significant < min_significant:
        return False
    # In units of the last digit given.
    scale = Fraction(10) ** decimal.decimals
    given, wanted = abs(decimal.value) * scale, abs(exact) * scale
    same_sign = (decimal.value < 0) == (exact < 0)
    return same_sign and (abs(given - wanted) <= Fraction(1, 2) or given <= wanted < given + 1)


def terminates(fraction: Fraction) -> bool:
    """Whether a fraction is a finite decimal: its denominator has no prime factors but 2 and 5."""
    denominator = fraction.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _integer(digits):
    return int(re.sub("[, ]", "", digits))


_TRAILING_UNIT = re.compile(r"\\text\{[^{}]*\}(?:\^(?:\{[23]\}|[23]))?$|\\degree$")


def split_unit(text: str) -> tuple[str, str]:
    """`"8\\pi\\text{ cm}"` as `("8\\pi", "cm")`; the unit is empty where there is none."""
    match = _TRAILING_UNIT.search(text)
    unit = _read_unit(match.group()) if match and match.start() else None
    return (text[: match.start()], unit) if unit else (text, "")


_UNIT_ALIASES = {
    "inch": "inch", "in": "inch", "foot": "foot", "feet": "foot", "ft": "foot", "yd": "yard",
    "cm": "cm", "centimeter": "cm", "centimetre": "cm", "m": "m", "meter": "m", "metre": "m",
    "km": "km", "kilometer": "km", "kilometre": "km", "mm": "mm", "millimeter": "mm",
    "g": "g", "gram": "g", "kg": "kg", "kilogram": "kg", "mg": "mg", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "s": "second", "sec": "second", "min": "minute", "hr": "hour", "h": "hour",
    "ml": "ml", "milliliter": "ml", "l": "liter", "litre": "liter", "mi": "mile", "deg": "degree",
    "usd": "dollar", "mph": "mile / hour", "kph": "km / hour", "per": "/", "sq": "square",
}  # fmt: skip
# Words that change the number before them, or join it to another: no units.
_NOT_UNITS = frozenset(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred hundreds thousand thousands million millions billion billions trillion dozen dozens
    score
    half halves third thirds quarter quarters fourth fourths fifth fifths sixth eighth tenth tenths
    hundredth hundredths thousandth percent percentage squared cubed factorial plus minus times
    divided over mod modulo point and or not nor but either maybe perhaps possibly if else unless
    until wrong incorrect negative versus vs approximately about to x e i oo pi sqrt sin cos tan log
    ln exp equals is are was lambda import
    """.split()
)
_UNIT = re.compile(r"[A-Za-z][A-Za-z' .-]*(?:/[A-Za-z ]+)?(?:\^(?:\{[23]\}|[23]))?", re.DOTALL)


def _read_unit(text):
    """One spelling of a unit, "" for none, None if the text is no unit."""
    if not text:
        return ""
    if text == r"\degree":
        return "degree"
    if text in _CURRENCIES:
        return _CURRENCIES[text]
    marked = r"\text" in text
    separated = text[0] == " "
    plain = _TEXT.sub(r" \1", text).strip().lower()
    if not marked and plain.startswith("(") and plain.endswith(")"):
        plain = plain[1:-1]
    plain = plain.replace(r"\degree", " degree").strip()
    if len(plain) > 80 or not _UNIT.fullmatch(plain):
        return None
    power = "^2" if "^2" in plain or "^{2}" in plain else "^3" if "^" in plain else ""
    words = re.sub(r"\^\{?\d\}?", "", plain).replace("/", " / ").replace(".", " ").split()
    if len(words) > 8 or any(word in _NOT_UNITS for word in words):
        return None
    if not marked:
        # Without \text or a space, letters behind a number are variables, unless well known.
        known = words[0] in _UNIT_ALIASES and (len(words[0]) > 1 or separated)
        wordlike = len(words[0]) > 2 and re.search("[aeiou]", words[0])
        if not known and not (wordlike and (separated or len(words[0]) > 3)):
            return None
    if words[0] in ("square", "sq", "cubic"):
        power = "^3" if words[0] == "cubic" else "^2"
        words = words[1:] or ["unit"]
    return " ".join(_UNIT_ALIASES.get(word, _UNIT_ALIASES.get(_singular(word), _singular(word)))
                    for word in words) + power  # fmt: skip


def _singular(word):
    if word.endswith("ches") or word.endswith("shes"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
