"""Reads units of measure and the nouns after a number, and gives each one spelling."""

import re

CURRENCY_SIGNS = {
    "$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen", "₹": "rupee", "₩": "won",
    "₽": "ruble", "₪": "shekel", "₫": "dong", "₺": "lira", "₦": "naira", "฿": "baht",
}  # fmt: skip
_CURRENCY_CODES = {
    "USD": "dollar", "US$": "dollar", "HK$": "hong kong dollar", "A$": "australian dollar",
    "AU$": "australian dollar", "C$": "canadian dollar", "CA$": "canadian dollar",
    "NZ$": "new zealand dollar", "S$": "singapore dollar", "HKD": "hong kong dollar",
    "AUD": "australian dollar", "CAD": "canadian dollar", "EUR": "euro", "GBP": "pound sterling",
    "JPY": "yen", "CNY": "yuan", "RMB": "yuan", "INR": "rupee", "Rs.": "rupee", "Rs": "rupee",
    "KRW": "won", "CHF": "franc", "PLN": "zloty", "R$": "real", "RUB": "ruble",
}  # fmt: skip
# All marks that may stand before an amount of money; the pattern tries the longest first.
CURRENCIES = CURRENCY_SIGNS | _CURRENCY_CODES
CURRENCY_PATTERN = "|".join(re.escape(mark) for mark in sorted(CURRENCIES, key=len, reverse=True))
_MONEY = set(CURRENCIES.values())

_ALIASES = {
    "inch": "in inch inches", "foot": "ft foot feet", "yard": "yd yard", "mile": "mi mile",
    "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre",
    "dm": "dm decimeter decimetre", "m": "m meter metre", "km": "km kilometer kilometre",
    "nm": "nm nanometer nanometre", "mg": "mg milligram", "g": "g gram gramme",
    "kg": "kg kilogram kilo", "tonne": "tonne", "ton": "ton", "pound": "lb lbs pound",
    "ounce": "oz ounce", "second": "s sec second", "ms": "ms millisecond",
    "minute": "min minute", "hour": "h hr hour", "day": "day", "week": "week wk",
    "month": "month", "year": "year yr", "ml": "ml mL milliliter millilitre",
    "liter": "l L liter litre", "gallon": "gal gallon", "cup": "cup", "degree": "deg degree",
    "radian": "rad radian", "celsius": "C celsius", "fahrenheit": "F fahrenheit",
    "kelvin": "K kelvin", "newton": "N newton", "joule": "J joule", "kj": "kJ kilojoule",
    "watt": "W watt", "kw": "kW kilowatt", "volt": "V volt", "ampere": "A amp ampere",
    "ohm": "ohm", "hertz": "Hz hertz", "pascal": "Pa pascal", "mole": "mol mole",
    "unit": "unit", "dollar": "dollar usd", "cent": "cent", "euro": "euro eur",
    "rupee": "rupee", "yuan": "yuan 元", "won": "won 원", "yen": "yen 円", "zloty": "zł zloty",
    "mile / hour": "mph", "km / hour": "kph kmh", "hectare": "ha hectare", "acre": "acre",
    "square": "sq square", "/": "per", "people": "people person", "child": "child children",
}  # fmt: skip
_UNIT_OF = {alias: unit for unit, aliases in _ALIASES.items() for alias in aliases.split()}
# Units of one capital letter count only inside \text{...} or after a degree sign.
_CAPITALS = frozenset("CFKNJWVAL")

# These words change the number before them or join it to another one, so they are no units.
_NOT_UNITS = frozenset(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred hundreds thousand thousands million millions billion billions trillion trillions lakh
    lakhs crore crores dozen dozens score scores gross pair pairs couple myriad googol
    half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh
    sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths
    millionth millionths percent percentage percents pct squared cubed factorial plus minus times
    divided over mod modulo point and or not nor but either neither maybe perhaps possibly if else
    unless until wrong incorrect false negative versus vs approximately about around roughly to x y
    z n e i oo pi sqrt sin cos tan log ln exp equals equal is are was were be lambda import less
    more than fewer greater least most except without other another alternatively otherwise
    instead rather also then so because which where when while for all any every power root raised
    remainder out between from through repeating recurring unknown undefined infinity square-root
    double triple twice thrice off short away mod.
    """.split()
)
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*\.?")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TEXT_FRACTION = re.compile(r"\\frac\{\\text\{([^{}]*)\}\}\{\\text\{([^{}]*)\}((?:\^\{?\d\}?)?)\}")
_PIECE = re.compile(r"([^\W\d_]+(?:[-'][^\W\d_]+)*\.?)(?:\^\{?(-?\d)\}?)?|(/)|([·*]|\\cdot)|\s+")
_SQUARED = re.compile(r"(?<=[A-Za-z])[ ](squared|cubed)(?![A-Za-z])")
_MAX_LENGTH, _MAX_WORDS = 80, 8


def read_unit(text: str, known_only: bool = False) -> str | None:
    r"""Returns one spelling of the unit after a number; "" for nothing, None if it is no unit.

    Args:
      text: the rest of a canonical text after the number, such as `"\text{ cm}^2"`.
      known_only: accept only units of measure and money, no other nouns ("apples").
    """
    if not text.strip():
        return ""
    if text.strip() in CURRENCIES:
        return CURRENCIES[text.strip()]
    if len(text) > _MAX_LENGTH:
        return None
    marked = r"\text" in text or r"\degree" in text
    separated = text[0] == " " or not text[0].isascii()
    plain = _TEXT_FRACTION.sub(r" \1/\2\3", text)
    plain = (
        _SQUARED.sub(_power_sign, _TEXT.sub(r" \1", plain))
        .replace(r"\degree", " degree ")
        .replace("\\ ", " ")
        .strip()
    )
    if plain.startswith("(") and plain.endswith(")"):
        plain = plain[1:-1].strip()
        separated = True
    words = _words(plain)
    if not words or len(words) > _MAX_WORDS:
        return None
    if any(_changes_number(word) for word, _ in words):
        return None
    known = [_known(word, marked) for word, _ in words]
    if known_only and not all(known):
        return None
    if any(len(word) == 1 and word.isascii() and not unit for unit, (word, _) in zip(known, words)):
        return None  # A letter is a variable, or short for a word such as million.
    first = words[0][0]
    if not marked:
        # Without \text or a space, letters after a number are variables, unless they are a
        # well-known unit.
        well_known = known[0] and (separated or len(first) > 1)
        wordlike = len(first) > 2 and re.search("[aeiou]|[^\x00-\x7f]", first.lower())
        wordlike = wordlike or not first.isascii()
        if not well_known and not (wordlike and (separated or len(first) > 3)):
            return None
    return _spelling(
        [(unit or _singular(word), power) for unit, (word, power) in zip(known, words)]
    )


def agree(one: str, other: str) -> bool:
    """Says whether two units of `read_unit` are the same.

    The thing that money pays for does not count.
    """
    if one == other:
        return True
    for money in _MONEY:
        if one == money or other == money:
            return one.startswith(f"{money} /") or other.startswith(f"{money} /")
    return False


def _power_sign(match):
    return "^2" if match[1] == "squared" else "^3"


def _words(text):
    """Returns (word, power) pairs and ("/", "") of a unit; nothing if there is any other text."""
    words, end = [], 0
    for match in _PIECE.finditer(text):
        if match.start() != end:
            return []
        end = match.end()
        if match[1]:
            words.append((match[1], match[2] or ""))
        elif match[3]:
            words.append(("/", ""))
    return words if end == len(text) else []


def _changes_number(word):
    word = word.lower().strip(".")
    return word in _NOT_UNITS or _singular(word) in _NOT_UNITS


def _known(word, marked):
    word = word.rstrip(".")
    if word == "/":
        return "/"
    if word in _CAPITALS and not marked:
        return ""
    forms = (word, word.lower(), _singular(word)) if len(word) > 1 else (word,)
    for form in forms:
        if form in _UNIT_OF:
            return _UNIT_OF[form]
    return ""


def _spelling(words):
    words = [
        part
        for name, power in words
        for part in ([("/", ""), (name, power[1:])] if power.startswith("-") else [(name, power)])
    ]
    names = [name for name, _ in words]
    if names[0] in ("square", "cubic") and len(words) > 1:
        power = "2" if names[0] == "square" else "3"
        words = [(words[1][0], power), *words[2:]]
    elif names[0] == "degree" and len(words) == 2 and names[1] in ("celsius", "fahrenheit"):
        words = [(names[1], "")]
    elif len(words) == 2 and names[1] == "old":
        words = words[:1]
    elif len(words) == 3 and words[0][0] not in _MONEY and names[1] == "u.s.":
        words = words[:1]
    return " ".join(name + (f"^{power}" if power not in ("", "1") else "") for name, power in words)


def _singular(word):
    word = word.lower().rstrip(".")
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
