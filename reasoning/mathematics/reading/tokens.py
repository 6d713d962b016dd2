"""Splits a canonical text into tokens, and lists the names that the expression reader knows."""

import re

from reasoning.mathematics.reading.trees import Unreadable

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"|(?P<text>\\text\{[^{}]*\})|(?P<command>\\[A-Za-z]+|\\[{}|])|(?P<letter>[A-Za-z])"
    r"|(?P<sign>[-+*/^_!'()\[\]{}|%,=]))"
)
TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
FUNCTIONS = frozenset(
    (*TRIGONOMETRIC, "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp")
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi"
    " rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi"
    " Omega ell hbar".split()
)
DECORATIONS = frozenset("vec overline hat tilde dot mathbb mathcal widehat underline".split())
TIMES = ("*", r"\cdot", r"\times", r"\ast")
# Letters that name functions: f(x) is a value of f, but x(y+1) is a product.
FUNCTION_LETTERS = frozenset("fghFGH")
# A token that cannot start another factor of a product.
ENDS = frozenset(("+", "-", ")", "]", "}", "/", ",", "%", "", "|", r"\}", "!", "'", "^", "_", "="))


def tokenize(text: str) -> list[tuple[str, str]]:
    """Returns (kind, token) pairs, the last of them ("end", "").

    Kinds are "number", "text", "command", "letter" and "sign".

    Raises:
      Unreadable: no token starts with a character of the text.
    """
    tokens, end, length = [], 0, len(text.rstrip())
    while end < length:
        match = _TOKEN.match(text, end)
        if not match or match.lastgroup is None:
            raise Unreadable(f"it cannot be read at {text[end : end + 12]!r}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        end = match.end()
    return [*tokens, ("end", "")]
