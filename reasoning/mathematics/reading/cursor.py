"""A place in the tokens of a mathematical text, and the reading of parts that need no grammar."""

import re

from reasoning.mathematics.reading.trees import Unreadable


class Cursor:
    """Steps through tokens.

    Attributes:
      tokens: (kind, token) pairs, as `tokenize` returns them.
      at: the index of the next token.
    """

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens = tokens
        self.at = 0

    @property
    def next(self) -> str:
        """Returns the next token, or "" at the end."""
        return self.tokens[self.at][1]

    @property
    def kind(self) -> str:
        """Returns the kind of the next token."""
        return self.tokens[self.at][0]

    def take(self, wanted: str | None = None) -> str:
        """Returns the next token and steps past it.

        Raises:
          Unreadable: the text has ended, or the next token is not `wanted`.
        """
        token = self.next
        if token == "" or (wanted is not None and token != wanted):
            raise Unreadable(f"{wanted or 'something'} is missing at {token[:20]!r}")
        self.at += 1
        return token

    def digit(self) -> str:
        """Takes a number as the argument of a command, which LaTeX gives one digit only.

        Raises:
          Unreadable: the number has several digits.
        """
        if len(self.next) > 1:
            raise Unreadable("a number of several digits without braces")
        return self.take()

    def raw_group(self) -> str:
        """Takes a group whose opening brace was taken; returns the text inside its braces."""
        parts, depth = [], 1
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")
            parts.append(token)
        return "".join(parts[:-1])

    def derivative(self) -> str | None:
        r"""Takes the two groups of \frac{dy}{dx} or \frac{d^2y}{dx^2}, which is no quotient.

        Returns:
          A name of the derivative. None, with nothing taken, if the groups make none.
        """
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
        if match[3] == "x":  # dy/dx means y'
            return match[2] + "'" * order
        return f"d{order}{match[2]}/d{match[3]}"
