"""Splits a canonical text at its top level: brackets, elements, relation signs."""

import re

from reasoning.mathematics.reading.text import closing_brace
from reasoning.mathematics.reading.trees import Unreadable

_BRACKETS = re.compile(r"\\[{}]|[(\[{}\])]")
_OPENING, _CLOSING = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
RELATION = re.compile(r"\\(?:le|ge|ne|approx)(?![A-Za-z])|[<>=]")
_CONNECTIVE = re.compile(r"\\text\{ ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")


def split_at(text: str, sign: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Splits a text at the matches of `sign` outside all brackets.

    Returns:
      The parts and the matches.

    Raises:
      Unreadable: brackets do not balance. Their kinds may differ, as in [0,1).
    """
    parts, signs, depth, start, at = [], [], 0, 0, 0
    while at < len(text):
        bracket = _BRACKETS.match(text, at)
        if bracket:
            depth += 1 if bracket.group() in _OPENING else -1
            if depth < 0:
                raise Unreadable("its brackets do not balance")
            at = bracket.end()
            continue
        match = sign.match(text, at) if depth == 0 else None
        if match and match.end() > at:
            parts.append(text[start:at].strip())
            signs.append(match.group())
            start = at = match.end()
        elif text[at] == "\\" and (command := re.match(r"\\[A-Za-z]+", text[at:])):
            at += command.end()
        else:
            at += 1
    if depth:
        raise Unreadable("its brackets do not balance")
    return [*parts, text[start:].strip()], signs


_COMMA = re.compile(",")


def elements(text: str) -> tuple[str, list[str]]:
    """Returns the brackets around a tuple, interval or set ("" for a bare list), and its elements.

    Raises:
      Unreadable: a bare list has no elements.
    """
    brackets, inner = "", text
    if text.startswith(r"\{") and text.endswith(r"\}"):
        brackets, inner = "{}", text[2:-2]
    elif text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
        brackets, inner = "{}", text[1:-1]
    elif text.startswith(r"\langle") and text.endswith(r"\rangle"):
        brackets, inner = "()", text[len(r"\langle") : -len(r"\rangle")]
    elif is_enclosed(text):
        inside = inner_elements(text)
        if len(inside) > 1:
            return text[0] + text[-1], [v for part in inside for v in with_signs(part) if v]
    if not brackets:
        inner = re.sub(r",\s*,", ",", _CONNECTIVE.sub(",", text))
    parts, _ = split_at(inner, _COMMA)
    found = [value for part in parts for value in with_signs(part) if value]
    if not found and not brackets:
        raise Unreadable("there is nothing to compare")
    return brackets, found


def is_enclosed(text: str) -> bool:
    """Says whether the first bracket, ( or [, closes with the last character."""
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]"):
        return False
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += 1 if match.group() in _OPENING else -1
        if depth == 0:
            return match.end() == len(text)
    return False


def inner_elements(text: str) -> list[str]:
    """Returns the elements between the first and the last character; [1;3] is [1,3]."""
    parts, _ = split_at(text[1:-1], _COMMA)
    if len(parts) == 1:
        parts, _ = split_at(text[1:-1], re.compile(";"))
    return parts


def with_signs(text: str) -> list[str]:
    r"""Returns both values of "a \pm b"."""
    if r"\pm" not in text and r"\mp" not in text:
        return [text.strip()]
    signs = (("+", "-"), ("-", "+"))
    pair = [text.replace(r"\pm", plus).replace(r"\mp", minus) for plus, minus in signs]
    return [re.sub(r"(^|[=(,])\+", r"\1", each).strip() for each in pair]


def split_relation(text: str) -> tuple[list[str], list[str]]:
    """Returns the sides and signs of a chain of relations; a single side if it is none."""
    return split_at(text, RELATION)
