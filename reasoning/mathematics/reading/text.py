"""Gives mathematical answers one spelling, without evaluating anything.

`canonical` maps the many ways to write an answer (LaTeX, Unicode, Markdown, plain text) to one, by
regular expressions that take time linear in the length.
"""

import re
import unicodedata
from fractions import Fraction

# Maps signs to their LaTeX or ASCII name.
_SIGNS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/", "√": r"\sqrt ", "∞": r"\infty ",
    "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "π": r"\pi ", "°": r"\degree ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "≈": r"\approx ", "∅": r"\emptyset ",
    "’": "'", "‘": "'", "′": "'", "“": '"', "”": '"', "，": ", ", "、": ", ", "。": ".",
    "⟨": r"\langle ", "⟩": r"\rangle ", "…": r"\ldots ", "⋯": r"\ldots ", "→": r"\to ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ",
    "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "«": "", "»": "", "¬": r"\neg ", "∖": r"\setminus ",
})  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_END = r"(?![A-Za-z])"
_FUNCTIONS = (
    "pi|sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|theta|gcd|lcm"
)
# Matches macros that set text: they hold words, or a number or letter in another typeface.
_FACES = re.compile(
    r"\\(?:math(?:rm|sf|it|tt|normal|bf)|text(?:rm|bf|it|sf|normal)?|mbox|hbox|operatorname\*?"
    r"|boldsymbol|bm)\s*\{((?:[^{}]|\{[^{}]{0,9}\})*)\}"
)
_BEFORE_TEXT = [
    (re.compile(r"^\s*~"), r"\\sim "),
    (re.compile(r"\\(?:bf|rm|it|sf|tt)(?![A-Za-z])"), " "),
    (re.compile(r"^\s*\\text\{[^{}]{1,40}:\s*\}"), ""),
    (re.compile(r"\\hspace\*?\s*\{[^{}]*\}|\\h?fill" + _END), " "),
    (re.compile(r"\\\\\s*\[[^\[\]]{0,9}\]|\\cr" + _END), r"\\\\"),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|(?<!\\)~"), " "),
]
_LATEX_SPELLINGS = [
    (re.compile(rf"\\[dtc]frac{_END}"), r"\\frac"),
    (re.compile(rf"\\[dt]binom{_END}"), r"\\binom"),
    (
        re.compile(
            rf"\\(?:left|right)\s*\.|\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle"
            rf"|limits|nolimits|mathstrut){_END}"
        ),
        "",
    ),
    (re.compile(r"\\!\s*|\{,\}(?=\d)\s*"), lambda match: "," if "," in match.group() else ""),
    (
        re.compile(rf"\^\s*(?:\\circ{_END}|\{{\s*\\circ\s*\}}|\{{?\s*\\degree{_END}\s*\}}?)"),
        r"\\degree ",
    ),
    (re.compile(r"(?<!\\)\\([%$#&])"), r"\1"),
    (re.compile(rf"\\(?:leq|leqslant){_END}|<=(?!>)|=<"), r"\\le "),
    (re.compile(rf"\\(?:geq|geqslant){_END}|>="), r"\\ge "),
    (re.compile(rf"\\(?:neq|not\s*=){_END}|!="), r"\\ne "),
    (re.compile(rf"\\(?:lt){_END}"), "<"),
    (re.compile(rf"\\(?:gt){_END}"), ">"),
    (re.compile(rf"\\(?:simeq|doteq){_END}"), r"\\approx "),
    (re.compile(rf"\\(?:[lr]?vert|lvert|rvert){_END}"), "|"),
    (re.compile(rf"\\lbrace{_END}"), r"\\{"),
    (re.compile(rf"\\rbrace{_END}"), r"\\}"),
    (re.compile(rf"\\varnothing{_END}|\\\{{\s*\\\}}"), r"\\emptyset "),
    (re.compile(rf"\\(?:dots|cdots|dotsc|dotsb|ldotp){_END}|\.\.\.+"), r"\\ldots "),
    (re.compile(rf"\\(?:lor|vee){_END}"), r"\\text{ or }"),
    (re.compile(rf"\\bar{_END}"), r"\\overline"),
    (re.compile(r"\*\*"), "^"),
    # These are functions and constants as plain words; words in \text{...} were taken out before.
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS}){_END}"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    # x^12 means x^{12} to everyone but LaTeX, and log_10 means log_{10}.
    (re.compile(r"([_^])\s*(-?\d{2,}|-\s*\d|-\s*[A-Za-z])"), r"\1{\2}"),
    (re.compile(r"\{([^{}]{1,40})\\choose(?![A-Za-z])([^{}]{1,40})\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"([^{}]{1,40})\\choose(?![A-Za-z])([^{}]{1,40})"), r"\\binom{\1}{\2}"),
    # This braces the arguments of \frac12, \frac1{2} and \frac{1}2.
    (
        re.compile(r"\\frac\s*(\{[^{}]*\}|[\dA-Za-z])\s*(\{[^{}]*\}|[\dA-Za-z])"),
        lambda match: rf"\frac{{{_unbraced(match[1])}}}{{{_unbraced(match[2])}}}",
    ),
    (re.compile(r"\\sqrt\s*(?:(\d)(?!\d)|\(([^()]*)\))"), r"\\sqrt{\1\2}"),
    # An array in brackets is a matrix; an array after a brace is a system of equations.
    (
        re.compile(
            r"[(\[]\s*\\begin\{array\}(?:\{[^{}]*\})?((?:(?!\\begin).){1,1500}?)\\end\{array\}\s*[)\]]",
            re.DOTALL,
        ),
        r"\\begin{pmatrix}\1\\end{pmatrix}",
    ),
    (re.compile(r"(\\(?:begin|end))\{(?:[bB]|small)matrix\}"), r"\1{pmatrix}"),
    (
        re.compile(
            r"(?:\\\{\s*)?\\begin\{(cases|array|aligned|gathered)\}(?:\{[lcr|]*\})?"
            r"((?:(?!\\begin).){1,1500}?)\\end\{\1\}",
            re.DOTALL,
        ),
        lambda match: match[2].replace(r"\\", ", ").replace("&", " ").strip(" ,"),
    ),
]
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WRAPPED = [
    re.compile(pattern, re.DOTALL)
    for pattern in (r"\\\[(.*)\\\]", r"\\\((.*)\\\)", r"`([^`]*)`", r'"([^"]*)"')
]
# Match bold and underlined text of Markdown ("**73** apples", "__73__"), but not Python's power.
_BOLD = re.compile(
    r"(?<![\w)\]}*])\*\*(?=[^\s*])((?:[^*]|\*(?!\*)){1,400}?)(?<=[^\s*])\*\*(?![\w*(])"
)
_UNDERLINED = re.compile(r"(?<![\w)\]}])__(?=[^\s_])([^_]+?)(?<=\S)__(?!\w)")
_DANGLING = re.compile(r"^(?:\*\*|__)\s*|\s*(?:\*\*|__)$")
_MAX_LENGTH = 20_000
_DOLLAR = re.compile(r"(?<!\\)\$")
_BOXED = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_BRACES = re.compile(r"\\[{}\\]|[{}]")
_HEADING = re.compile(
    r"^(?:(?:the |my )?(?:final |correct )?(?:answer|ans|solution)\s*(?:is\b|:|=))+\s*", re.I
)
_ONE_LETTER = re.compile(r"([a-z])\s?:\s(?=\S)")
# Spaces matter only between two letters or digits ("1 8", "\cot x"), and after a comma, where they
# separate a list of numbers from the thousands of one number.
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9,]) | (?![A-Za-z0-9])|(?<=,) (?!\d)")


def canonical(text: str) -> str:
    r"""Returns the text in one spelling.

    It also removes `$...$`, `\boxed{...}`, Markdown and full stops around the text.
    """
    text = _plain_characters(text)
    text = unwrap(text)
    text = _HEADING.sub("", text)
    text = _ONE_LETTER.sub(r"\1=", text, count=1) if _ONE_LETTER.match(text) else text
    text = unwrap(text)
    # \text{...} holds words, which the rules below must not change.
    words: list[str] = []

    def take_out(match):
        words.append(match[1].strip())
        return f"\x00{len(words) - 1}\x00"

    for pattern, replacement in _BEFORE_TEXT:
        text = pattern.sub(replacement, text)
    for _ in range(4):  # A typeface may stand inside another.
        before, text = text, _FACES.sub(_plain_face, text)
        if text == before:
            break
    text = _TEXT.sub(take_out, text)
    for pattern, replacement in _LATEX_SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _TEXT.sub(take_out, text)
    text = " ".join(text.split())
    text = text.replace(" ,", ",")
    text = _LOOSE_SPACE.sub("", text)
    text = re.sub("\x00(\\d+)\x00", lambda match: rf"\text{{{words[int(match[1])]}}}", text)
    return text.lstrip(" ,;:=").rstrip(" .,;:=")


def _plain_face(match):
    r"""Returns a number or symbol in another typeface as itself; else \text{...}."""
    face, held = match.group().split("{", 1)[0], match[1]
    inner = held.strip()
    if re.fullmatch(r"[-+]?[\d.,/]*\d[\d.,/]*|/", inner):
        return f" {inner} "
    if re.search("math|bold|bm", face):
        if re.fullmatch("[ei]", inner) and "bf" not in face:
            return f" {inner} "
        if re.fullmatch("[A-Za-z]", inner) and re.search("bf|bold|bm", face):
            return rf"\vec{{{inner}}}"
    if "operatorname" in face and re.fullmatch(_FUNCTIONS, inner):
        return rf"\{inner} "
    # In \mathrm{cm^2}, the power does not belong to the text.
    power = re.fullmatch(r"(.*[A-Za-z])\s*(\^\{?\d\}?)\s*", held, re.DOTALL)
    held, power = (power[1], power[2]) if power else (held, "")
    held = held.replace("{", "").replace("}", "")
    return rf"\text{{{held}}}{power}"


def unwrap(text: str) -> str:
    """Removes what encloses the whole text: dollar signs, boxes, bold, quotes, full stops."""
    if len(text) > _MAX_LENGTH:  # No longer answer is ever compared.
        return text.strip()
    for _ in range(8):  # More layers are an attack, not an answer.
        before = text
        text = text.strip()
        if not text.endswith(".."):
            text = text.rstrip(".").strip()
        for pattern in _WRAPPED:
            match = pattern.fullmatch(text)
            if match:
                text = match[1]
        text = _UNDERLINED.sub(r"\1", _BOLD.sub(r"\1", text))
        if text.count("**") == 1 or text.count("__") == 1:
            text = _DANGLING.sub("", text)
        # Paired signs, as in "$18$ dollars", are LaTeX; a single one is money.
        if len(_DOLLAR.findall(text)) % 2 == 0:
            text = _DOLLAR.sub("", text)
        match = _BOXED.match(text)
        if match and closing_brace(text, match.end() - 1) == len(text) - 1:
            text = text[match.end() : -1]
        if text == before:
            break
    return text


def closing_brace(text: str, opening: int) -> int | None:
    """Returns the index of the brace that closes the one at `opening`, or None."""
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
    """Replaces Unicode look-alikes by ASCII digits and signs; removes control characters."""
    text = _CONTROL.sub("", text)
    if text.isascii():
        return text
    # Runs of super- and subscripts come first: later they would become ordinary digits.
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub("[₀-₉]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    # A root sign applies to the whole number after it, not only to its first digit.
    text = re.sub(r"√\s*(\d+)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=[√∛∜])\s*(\d+|[A-Za-z])", r"{\1}", text)
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
    if category == "Cf":  # joiners and direction marks, which are invisible
        return ""
    if "！" <= c <= "～":  # full-width ASCII
        return chr(ord(c) - 0xFEE0)
    if 0x1D400 <= ord(c) <= 0x1D7FF:  # mathematical letters
        return unicodedata.normalize("NFKC", c).translate(_SIGNS)
    if unicodedata.decomposition(c).startswith("<fraction>"):
        value = Fraction(unicodedata.numeric(c)).limit_denominator(10)
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    return c


def _unbraced(group):
    return group[1:-1].strip() if group.startswith("{") else group
