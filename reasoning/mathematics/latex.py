r"""A strict reader of mathematical expressions: canonical text to a tree.

Whatever it does not know is an error, so that no part of an answer can be dropped silently. The
trees are plain tuples, `(kind, ...)`:

    ("number", Fraction)              ("symbol", name)            ("constant", "pi" | "e" | "i")
    ("add", terms)                    ("multiply", factors)       ("divide", top, bottom)
    ("power", base, exponent)         ("root", argument, degree)  ("negate", argument)
    ("mixed", whole, fraction)        ("degrees", argument)
    ("function", name, arguments)     a known one, such as sin, log, factorial, abs
    ("unknown", name, arguments)      f(x), a_n, an integral: equal only to itself
    ("bound", "sum" | "prod" | "int" | "lim", variable, bounds, body)
"""

import re
from fractions import Fraction
from typing import Any

from reasoning.mathematics.quantity import integer

Tree = tuple[Any, ...]

_MAX_DEPTH = 60
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"|(?P<text>\\text\{[^{}]*\})|(?P<command>\\[A-Za-z]+|\\[{}|])|(?P<letter>[A-Za-z])"
    r"|(?P<sign>[-+*/^_!'()\[\]{}|%,=]))"
)
_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
_FUNCTIONS = frozenset(
    (*_TRIGONOMETRIC, "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp")
)
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi"
    " rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi"
    " Omega ell hbar".split()
)
_DECORATIONS = frozenset("vec overline hat tilde dot mathbb mathcal widehat underline".split())
_TIMES = ("*", r"\cdot", r"\times", r"\ast")
# Letters that name functions: f(x) is a value of f, while x(y+1) is a product.
_FUNCTION_LETTERS = frozenset("fghFGH")
# Signs behind which no further factor of a product can start.
_ENDS = frozenset(("+", "-", ")", "]", "}", "/", ",", "%", "", "|", r"\}", "!", "'", "^", "_", "="))


class Unreadable(ValueError):
    """The text is no mathematics that we can read."""


def read(text: str) -> Tree:
    """The tree of a canonical text.

    Raises:
        Unreadable: If any part of it is unknown, or it is nested too deeply.
    """
    reader = _Reader(text)
    tree = reader.sum(0)
    if reader.next != "":
        raise Unreadable(f"cannot be read at {reader.next!r}")
    return tree


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text):
        self.tokens = []
        end, length = 0, len(text.rstrip())
        while end < length:
            match = _TOKEN.match(text, end)
            if not match:
                raise Unreadable(f"cannot be read at {text[end : end + 12]!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            end = match.end()
        self.tokens.append(("end", ""))
        self.at = 0
        self.bars = 0  # how many |...| are open
        self.bound = []  # variables of the sums around

    @property
    def next(self):
        return self.tokens[self.at][1]

    @property
    def kind(self):
        return self.tokens[self.at][0]

    def take(self, wanted=None):
        token = self.next
        if token == "" or (wanted is not None and token != wanted):
            raise Unreadable(f"{wanted or 'something'} is missing at {token[:20]!r}")
        self.at += 1
        return token

    def sum(self, depth):
        if depth > _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        terms = [self.signed(depth)]
        while self.next in ("+", "-"):
            minus = self.take() == "-"
            term = self.product(depth)
            terms.append(("negate", term) if minus else term)
        return terms[0] if len(terms) == 1 else ("add", terms)

    def signed(self, depth):
        if self.next in ("+", "-"):
            minus = self.take() == "-"
            term = self.product(depth)
            return ("negate", term) if minus else term
        return self.product(depth)

    def product(self, depth):
        value = self.factor(depth)
        while True:
            if self.next in _TIMES:
                self.take()
                value = ("multiply", [value, self.signed_factor(depth)])
            elif self.next in ("/", r"\div"):
                self.take()
                value = ("divide", value, self.signed_factor(depth))
            elif self.starts_factor():
                previous, start = self.tokens[self.at - 1], self.at
                if self.kind == "number" and previous[1] != "!":
                    raise Unreadable("two numbers next to each other")
                factor = self.factor(depth)
                if previous[0] == "number" and self.tokens[start][1] == r"\frac":
                    value = self.mixed(value, factor)
                else:
                    value = ("multiply", [value, factor])
            else:
                return value

    def mixed(self, value, fraction):
        """A number before \\frac: a mixed number if all is whole, else a product."""
        whole = value[0] == "number" and value[1].denominator == 1
        parts = fraction[0] == "divide" and fraction[1:]
        if whole and parts and all(part[0] == "number" for part in parts):
            return ("mixed", value, fraction)
        if value[0] == "number" or value[0] in ("multiply", "divide"):
            if not (parts and all(part[0] == "number" for part in parts)):
                return ("multiply", [value, fraction])
        raise Unreadable("a number next to a fraction")

    def starts_factor(self):
        if self.next == "|":
            return not self.bars
        if self.kind == "text" or self.next in _ENDS or self.next in _TIMES:
            return False
        return self.next not in (r"\div", r"\}", r"\|") and self.kind != "end"

    def signed_factor(self, depth):
        if self.next in ("+", "-"):
            minus = self.take() == "-"
            value = self.factor(depth)
            return ("negate", value) if minus else value
        return self.factor(depth)

    def factor(self, depth):
        if depth > _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        base = self.base(depth + 1)
        while True:
            if self.next == "^":
                self.take()
                base = ("power", base, self.argument(depth + 1))
                if self.next == "^":
                    raise Unreadable("two exponents in a row")
            elif self.next == "!":
                self.take()
                if self.next == "!":
                    raise Unreadable("a double factorial")
                base = ("function", "factorial", [base])
            elif self.next == r"\degree":
                self.take()
                base = ("degrees", base)
            elif self.next == "%":
                self.take()
                base = ("divide", base, _number(100))
            elif self.next == "_" or self.next == "'":
                raise Unreadable(f"{self.next} at an unexpected place")
            else:
                return base

    def argument(self, depth):
        """What follows ^ or \\frac: a group, or one token with its sign."""
        if self.next == "{":
            return self.group("{", "}", depth)
        if self.next == "(":
            return self.group("(", ")", depth)
        if self.kind == "number":
            return _number(self.digit())
        return self.base(depth)

    def digit(self):
        """The first digit of the number ahead, which is all that LaTeX takes."""
        number = self.next
        if len(number) > 1:
            raise Unreadable("a number of several digits without braces")
        return self.take()

    def group(self, opening, closing, depth):
        self.take(opening)
        bars, self.bars = self.bars, 0
        value = self.sum(depth + 1)
        self.bars = bars
        self.take(closing)
        return value

    def base(self, depth):
        if depth > _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        kind, token = self.tokens[self.at]
        if kind == "number":
            self.take()
            return _number(token)
        if token == "{":
            return self.group("{", "}", depth)
        if token == "(":
            return self.group("(", ")", depth)
        if token == "[" and self.at:
            return self.group("[", "]", depth)
        if token == "|":
            return self.absolute(depth)
        if kind == "letter":
            return self.symbol(self.take(), depth)
        if kind == "command":
            return self.command(self.take()[1:], depth)
        raise Unreadable(f"cannot be read at {token[:20]!r}")

    def absolute(self, depth):
        self.take("|")
        self.bars += 1
        value = self.sum(depth + 1)
        self.take("|")
        self.bars -= 1
        return ("function", "abs", [value])

    def command(self, name, depth):
        if name == "frac":
            return self.fraction(depth)
        if name == "sqrt":
            degree = self.group("[", "]", depth) if self.next == "[" else _number(2)
            return ("root", self.argument(depth), degree)
        if name == "binom":
            return ("function", "binomial", [self.argument(depth), self.argument(depth)])
        if name == "pi":
            return ("constant", "pi")
        if name in _FUNCTIONS:
            return self.function(name, depth)
        if name in ("sum", "prod"):
            return self.series(name, depth)
        if name in ("int", "oint"):
            return self.integral(name, depth)
        if name == "lim":
            return self.limit(depth)
        if name in ("lfloor", "lceil"):
            value = self.sum(depth + 1)
            self.take(r"\r" + name[1:])
            return ("function", name[1:], [value])
        if name == "infty":
            return ("symbol", "infty")
        if name in _DECORATIONS:
            grouped = self.take() == "{"
            inner = self.raw_group() if grouped else self.tokens[self.at - 1][1]
            return self.symbol(rf"\{name}{{{inner}}}", depth)
        if name in ("angle", "triangle", "measuredangle"):
            letters = []
            while self.kind == "letter":
                letters.append(self.take())
            return ("symbol", rf"\angle {''.join(letters)}")
        if name in _GREEK:
            return self.symbol(rf"\{name}", depth)
        raise Unreadable(rf"\{name} is not known")

    def raw_group(self):
        """Text of a group whose opening brace was taken."""
        parts, depth = [], 1
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")
            parts.append(token)
        return "".join(parts[:-1])

    def fraction(self, depth):
        derivative = self.derivative()
        if derivative:
            return derivative
        top = self.argument(depth)
        return ("divide", top, self.argument(depth))

    def derivative(self):
        """\\frac{dy}{dx} and \\frac{d^2y}{dx^2} as names: they are no quotients of products."""
        end = next((i for i in range(self.at, len(self.tokens)) if self.tokens[i][1] == "}"), None)
        if end is None:
            return None
        tail = "".join(token for _, token in self.tokens[self.at : end + 12])
        match = re.match(
            r"\{(?:d|\\partial)(?:\^\{?(\d)\}?)?([A-Za-z])?\}"
            r"\{(?:d|\\partial)([A-Za-z])(?:\^\{?(\d)\}?)?\}",
            tail,
        )
        if not match or (match[1] or "1") != (match[4] or "1") or not match[2]:
            return None
        length = 0
        while length < match.end():
            length += len(self.take())
        order = int(match[1] or 1)
        if match[3] == "x":  # dy/dx is y'
            return ("symbol", match[2] + "'" * order)
        return ("symbol", f"d{order}{match[2]}/d{match[3]}")

    def function(self, name, depth):
        base = exponent = None
        if name == "log" and self.next == "_":
            self.take()
            base = self.argument(depth)
        if self.next == "^":
            self.take()
            exponent = self.argument(depth)
        if exponent == ("negate", _number(1)):
            if name not in _TRIGONOMETRIC:
                raise Unreadable(f"the inverse of {name}")
            name, exponent = f"arc{name}", None
            if name not in _FUNCTIONS:
                raise Unreadable(f"{name} is not known")
        arguments = [self.function_argument(depth)]
        if base is not None:
            arguments.append(base)
        value = ("function", name, arguments)
        return value if exponent is None else ("power", value, exponent)

    def function_argument(self, depth):
        """(...) is the whole argument; without brackets, the product up to the next function."""
        if self.next in ("(", "{", "["):
            closing = {"(": ")", "{": "}", "[": "]"}[self.next]
            start = self.at
            value = self.group(self.next, closing, depth)
            if self.next in ("^", "!"):  # \sin(x)^2: whose power it is, nobody can tell
                self.at = start
                return self.factor(depth)
            return value
        value = self.signed_factor(depth)
        while self.starts_factor() and self.next[1:] not in _FUNCTIONS and self.next != "(":
            if self.kind == "number":
                raise Unreadable("two numbers next to each other")
            value = ("multiply", [value, self.factor(depth)])
        return value

    def symbol(self, name, depth):
        """A letter with its subscript, primes and, for a function, its arguments."""
        arguments = []
        if self.next == "_":
            self.take()
            subscript = self.subscript(depth)
            if isinstance(subscript, str):
                name += f"_{subscript}"
            else:
                arguments.append(subscript)
        while self.next == "'":
            name += self.take()
        plain = name.rstrip("'")
        if plain in _FUNCTION_LETTERS or "'" in name or arguments:
            if plain in _FUNCTION_LETTERS and self.next == "^":
                tail = "".join(token for _, token in self.tokens[self.at : self.at + 6])
                if tail.startswith("^{-1}("):
                    self.at += 5
                    name += "^{-1}"
            if self.next == "(" and plain in _FUNCTION_LETTERS | {"y"}:
                self.take()
                arguments.append(self.sum(depth + 1))
                while self.next == ",":
                    self.take()
                    arguments.append(self.sum(depth + 1))
                self.take(")")
        if arguments:
            return ("unknown", name, arguments)
        if name in ("e", "i") and name not in self.bound:
            return ("constant", name)
        return ("symbol", name)

    def subscript(self, depth):
        """A name for x_1 or x_{max}; a tree for a_n and a_{n+1}, which may run over a sum."""
        if self.next != "{":
            kind, token = self.tokens[self.at]
            if kind == "number":
                return self.digit()
            if kind in ("text", "command"):
                return self.take()
            return ("symbol", self.take())
        start = self.at
        self.take()
        raw = self.raw_group()
        if re.fullmatch(r"\d+|\\?[A-Za-z]{2,}|\\text\{[^{}]*\}|[\d,]+", raw):
            return raw
        end, self.at = self.at, start
        value = self.group("{", "}", depth)
        return value if self.at == end else raw

    def series(self, name, depth):
        """A sum or product with its bounds, and the product that follows as its body."""
        self.take("_")
        self.take("{")
        if self.kind != "letter":
            raise Unreadable(f"{name} without a variable")
        variable = self.take()
        self.take("=")
        first = self.sum(depth + 1)
        self.take("}")
        self.take("^")
        last = self.argument(depth)
        self.bound.append(variable)
        body = self.product(depth + 1)
        self.bound.pop()
        return ("bound", name, variable, [first, last], body)

    def integral(self, name, depth):
        """An integral up to its "dx"."""
        bounds = []
        for sign in ("_", "^"):
            if self.next == sign:
                self.take()
                bounds.append(self.argument(depth))
        end, level = self.at, 0
        while level or [token for _, token in self.tokens[end : end + 1]] != ["d"]:
            if end >= len(self.tokens) - 2:
                raise Unreadable("an integral without dx")
            level += (self.tokens[end][1] == "{") - (self.tokens[end][1] == "}")
            end += 1
        if self.tokens[end + 1][0] != "letter":
            raise Unreadable("an integral without dx")
        variable = self.tokens[end + 1][1]
        body = _number(1)
        if end > self.at:
            inner = _Reader("")
            inner.tokens = [*self.tokens[self.at : end], ("end", "")]
            inner.bound = [*self.bound, variable]
            body = inner.sum(depth + 1)
            if inner.next != "":
                raise Unreadable(f"cannot be read at {inner.next!r}")
        self.at = end + 2
        return ("bound", name, variable, bounds, body)

    def limit(self, depth):
        """A limit, as a name for itself."""
        self.take("_")
        self.take("{")
        variable = self.take()
        if self.take() not in (r"\to", r"\rightarrow"):
            raise Unreadable("a limit without an arrow")
        target = self.sum(depth + 1)
        self.take("}")
        return ("bound", "lim", variable, [target], self.product(depth + 1))


def worked_out(tree: Tree) -> bool:
    """Whether a tree is a number in some notation, and no calculation that is left to the reader.

    A fraction, a power, a root, a factorial and 3 * 10^8 are notations; a sum and a product are not.
    """
    kind = tree[0]
    if kind in ("number", "constant"):
        return True
    if kind == "multiply":
        scientific = tree[1][1][0] == "power" and tree[1][1][1] == _number(10)
        return scientific and all(worked_out(factor) for factor in tree[1])
    if kind == "divide":
        return all(_signed_number(part) for part in tree[1:])
    if kind in ("negate", "mixed", "degrees", "power", "root"):
        return all(worked_out(part) for part in tree[1:]) or kind == "mixed"
    return kind == "function" and all(worked_out(argument) for argument in tree[2])


def _signed_number(tree):
    if tree[0] == "multiply":  # 2 pi
        return any(factor[0] == "constant" for factor in tree[1])
    return tree[0] in ("number", "constant") or (tree[0] == "negate" and _signed_number(tree[1]))


def _number(text):
    if isinstance(text, int):
        return ("number", Fraction(text))
    whole, _, decimals = text.partition(".")
    digits = len(decimals)
    return ("number", Fraction(integer((whole or "0") + decimals), 10**digits))
