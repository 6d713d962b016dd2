"""Reads mathematical expressions strictly: canonical text to a tree (`trees`).

Unknown text is an error, so no part of an answer can be dropped silently.
"""

import re

from reasoning.mathematics.reading.cursor import Cursor
from reasoning.mathematics.reading.tokens import (
    DECORATIONS,
    ENDS,
    FUNCTION_LETTERS,
    FUNCTIONS,
    GREEK,
    TIMES,
    TRIGONOMETRIC,
    tokenize,
)
from reasoning.mathematics.reading.trees import Tree, Unreadable, number_tree

_MAX_DEPTH = 60


def read(text: str) -> Tree:
    """Returns the tree of a canonical text.

    Raises:
      Unreadable: a part of it is unknown, or it is nested too deeply.
    """
    reader = _Reader(tokenize(text))
    tree = reader.sum(0)
    if reader.next != "":
        raise Unreadable(f"cannot be read at {reader.next!r}")
    return tree


class _Reader(Cursor):
    """Reads the tokens by recursive descent."""

    def __init__(self, tokens):
        super().__init__(tokens)
        self.bars = 0  # the number of open |...|
        self.bound = []  # the variables of the enclosing sums

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
            if self.next in TIMES:
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
        r"""Reads a number before \frac: a mixed number if all parts are whole, else a product."""
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
        if self.kind == "text" or self.next in ENDS or self.next in TIMES:
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
                base = ("divide", base, number_tree(100))
            elif self.next == "_" or self.next == "'":
                raise Unreadable(f"{self.next} at an unexpected place")
            else:
                return base

    def argument(self, depth):
        r"""Reads the argument of ^ or \frac: a group, or one token with its sign."""
        if self.next == "{":
            return self.group("{", "}", depth)
        if self.next == "(":
            return self.group("(", ")", depth)
        if self.kind == "number":
            return number_tree(self.digit())
        return self.base(depth)

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
            return number_tree(token)
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
            degree = self.group("[", "]", depth) if self.next == "[" else number_tree(2)
            return ("root", self.argument(depth), degree)
        if name == "binom":
            return ("function", "binomial", [self.argument(depth), self.argument(depth)])
        if name == "pi":
            return ("constant", "pi")
        if name in FUNCTIONS:
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
        if name in DECORATIONS:
            grouped = self.take() == "{"
            inner = self.raw_group() if grouped else self.tokens[self.at - 1][1]
            return self.symbol(rf"\{name}{{{inner}}}", depth)
        if name in ("angle", "triangle", "measuredangle"):
            letters = []
            while self.kind == "letter":
                letters.append(self.take())
            return ("symbol", rf"\angle {''.join(letters)}")
        if name in GREEK:
            return self.symbol(rf"\{name}", depth)
        raise Unreadable(rf"\{name} is not known")

    def fraction(self, depth):
        if name := self.derivative():
            return ("symbol", name)
        top = self.argument(depth)
        return ("divide", top, self.argument(depth))

    def function(self, name, depth):
        base = exponent = None
        if name == "log" and self.next == "_":
            self.take()
            base = self.argument(depth)
        if self.next == "^":
            self.take()
            exponent = self.argument(depth)
        if exponent == ("negate", number_tree(1)):
            if name not in TRIGONOMETRIC:
                raise Unreadable(f"the inverse of {name}")
            name, exponent = f"arc{name}", None
            if name not in FUNCTIONS:
                raise Unreadable(f"{name} is not known")
        arguments = [self.function_argument(depth)]
        if base is not None:
            arguments.append(base)
        value = ("function", name, arguments)
        return value if exponent is None else ("power", value, exponent)

    def function_argument(self, depth):
        """Reads the argument of a function.

        In brackets it is the whole argument; without brackets it is the product up to the next
        function.
        """
        if self.next in ("(", "{", "["):
            closing = {"(": ")", "{": "}", "[": "]"}[self.next]
            start = self.at
            value = self.group(self.next, closing, depth)
            if self.next in ("^", "!"):  # In \sin(x)^2, the power may belong to x or to sin.
                self.at = start
                return self.factor(depth)
            return value
        value = self.signed_factor(depth)
        while self.starts_factor() and self.next[1:] not in FUNCTIONS and self.next != "(":
            if self.kind == "number":
                raise Unreadable("two numbers next to each other")
            value = ("multiply", [value, self.factor(depth)])
        return value

    def symbol(self, name, depth):
        """Reads a letter with its subscript, primes and, for a function, its arguments."""
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
        if plain in FUNCTION_LETTERS or "'" in name or arguments:
            if plain in FUNCTION_LETTERS and self.next == "^":
                tail = "".join(token for _, token in self.tokens[self.at : self.at + 6])
                if tail.startswith("^{-1}("):
                    self.at += 5
                    name += "^{-1}"
            if self.next == "(" and plain in FUNCTION_LETTERS | {"y"}:
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
        """Returns a name for x_1 or x_{max}, and a tree for a_n and a_{n+1}.

        A tree may contain the variable of a sum.
        """
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
        """Reads a sum or product with its bounds, and the product that follows as its body."""
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
        """Reads an integral up to its "dx"."""
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
        body = number_tree(1)
        if end > self.at:
            inner = _Reader([*self.tokens[self.at : end], ("end", "")])
            inner.bound = [*self.bound, variable]
            body = inner.sum(depth + 1)
            if inner.next != "":
                raise Unreadable(f"cannot be read at {inner.next!r}")
        self.at = end + 2
        return ("bound", name, variable, bounds, body)

    def limit(self, depth):
        """Reads a limit, as a name for itself."""
        self.take("_")
        self.take("{")
        variable = self.take()
        if self.take() not in (r"\to", r"\rightarrow"):
            raise Unreadable("a limit without an arrow")
        target = self.sum(depth + 1)
        self.take("}")
        return ("bound", "lim", variable, [target], self.product(depth + 1))
