"""Finds the final answer in what a model wrote."""

import re

from reasoning.mathematics.text import unwrap
from reasoning.response import after_chain

_ANSWER_TAG = re.compile(r"</?answer>")
_BOX_OR_BRACE = re.compile(r"\\f?boxed\s*\{|\\[{}\\]|[{}]")
# "#### 18" is GSM8K's, "A: 18" that of its authors' models.
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_ANNOUNCED = re.compile(
    r"^[ \t*]*+(?:A|Final answer|Answer)[ \t*]*+[:=][ \t*]*+(\S[^\n]*)$"
    r"|\banswer\s{1,9}(?:is|:)[ \t]*+:?[ \t]*+(\S[^\n]*?)(?:\.\s|\.?$)",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"-?[$€£]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?%?")


def extract_answer(text: str) -> str | None:
    """The final answer in a response, or None. Never looks into the chain of thought.

    The first that applies, each time the last in the text: what stands in `<answer>` (where several
    such blocks differ, are nested or not closed, there is no answer); `\\boxed{...}`; behind
    "####"; behind "A:", "Answer:" or "the answer is"; the last number. Inside `<answer>` only a box
    or an announcement is looked for, else all of it is the answer: two numbers are no answer.
    Takes time linear in the length of the text.
    """
    visible = after_chain(text)
    if _ANSWER_TAG.search(visible):
        blocks = _answer_blocks(visible)
        if len(blocks) != 1:
            return None
        block = blocks.pop()
        return _marked(block) or unwrap(block) or None
    answer = _marked(visible)
    if answer is None:
        numbers = _NUMBER.findall(visible)
        answer = numbers[-1] if numbers else None
    return answer


def _answer_blocks(text):
    """What stands in answer blocks; nothing if one of them is nested or never closed."""
    blocks, start = set(), None
    for tag in _ANSWER_TAG.finditer(text):
        if tag.group() == "<answer>":
            if start is not None:
                return set()
            start = tag.end()
        elif start is not None:
            blocks.add(text[start : tag.start()].strip())
            start = None
    return blocks if start is None else set()


def last_boxed(text: str) -> str | None:
    """Content of the last `\\boxed{...}` whose braces balance, the outermost of nested ones."""
    content, opened = None, []
    for match in _BOX_OR_BRACE.finditer(text):
        token = match.group()
        if token[-1] == "{" and token[0] != "\\" or "boxed" in token:
            opened.append(match.end() if "boxed" in token else None)
        elif token == "}" and opened:
            start = opened.pop()
            if start is not None:
                content = text[start : match.start()]
    return content.strip() if content is not None else None


def _marked(text):
    """The answer that is marked as such, or None."""
    answer = last_boxed(text)
    if answer is None:
        hashes = _HASHES.findall(text)
        if hashes:
            answer = hashes[-1]
    if answer is None:
        for match in _ANNOUNCED.finditer(text):
            answer = match[1] or match[2]
    return unwrap(answer) or None if answer is not None else None
