"""Parses the DeepSeek-R1 format: `<think> chain </think> <answer> final answer </answer>`.

DeepSeek-R1 (arXiv:2501.12948), table 1.
"""

import dataclasses
import re
from collections.abc import Sequence

from reasoning.scripts import has_visible

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

_TAG = re.compile(r"</?(?:think|answer)>")
# The tags that a prompt may end in and so open, in order.
_OPENED = re.compile(rf"(?:[ \t]*{THINK_OPEN}\s*(?:{THINK_CLOSE}\s*(?:{ANSWER_OPEN}\s*)?)?)?\Z")
_EXPECTED = [THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE]


@dataclasses.dataclass(frozen=True)
class Response:
    """A parsed response.

    Attributes:
        chain: Text between the first `<think>` and the last `</think>`, stripped; all the rest if
            the block is never closed; None if it is never opened.
        answer: Text of the answer block, stripped. None unless exactly one answer block stands
            outside the chain: an answer inside the chain does not count, nor does any of two
            answers.
        well_formed: Whether the response has the format, see `parse_response`.
        reason: Why it is well formed or not, in words.
    """

    chain: str | None
    answer: str | None
    well_formed: bool
    reason: str


def parse_response(text: str) -> Response:
    """Parses a response and checks its format, in time linear in its length.

    A well-formed response has exactly one think block, then exactly one answer block with visible
    text, and only white space before, between and after them; so no tag is repeated or nested. An
    empty chain is allowed: the accuracy reward judges its worth.

    Args:
        text: The whole response, decoded without special tokens; see `whole_response`.
    """
    tags = list(_TAG.finditer(text))
    chain, end_of_chain = _chain(text, tags)
    answer = _only_answer(text, [tag for tag in tags if tag.start() >= end_of_chain])
    fault = _format_fault(text, tags)
    return Response(chain, answer, not fault, fault or "well formed")


def opened_by(prompt: str) -> str:
    """Returns the tags at the end of a prompt, which begin the response.

    The result is `<think>`, or `<think></think>` or `<think></think><answer>` if the chain must
    stay empty, with the white space around; it is empty if the model writes the first tag itself.
    """
    match = _OPENED.search(prompt)
    return match.group() if match else ""


def whole_response(prompt: str, completion: str) -> str:
    """Returns the whole response: the tags that the prompt opened, then the completion."""
    return opened_by(prompt) + completion


def without_opening(prompt: str, response: str) -> str:
    """Removes the tags that the prompt opened from the start of a whole response.

    Raises:
        ValueError: If the response does not begin with the tags that the prompt opened.
    """
    opened = opened_by(prompt).split()
    rest = response
    for tag in _TAG.findall("".join(opened)):
        rest = rest.lstrip()
        if not rest.startswith(tag):
            raise ValueError(
                f"the prompt ends in {' '.join(opened)!r}, but the response does not begin with it:"
                f" {response!r:.60}"
            )
        rest = rest.removeprefix(tag)
    return rest


def tagged(steps: Sequence[str], answer: str) -> str:
    """Returns a response in the R1 format, with one line for each step of the chain."""
    chain = "".join(f" {step}\n" for step in steps)
    return f" {THINK_OPEN}\n{chain}{THINK_CLOSE}{ANSWER_OPEN} {answer}{ANSWER_CLOSE}"


def after_chain(text: str) -> str:
    """Returns the text after the think block, which a reader of the answer may see.

    The result is empty for an unclosed chain, and the whole text if it has no think tag. A
    `</think>` without `<think>` ends a chain that the prompt opened.
    """
    _, end_of_chain = _chain(text, list(_TAG.finditer(text)))
    return text[end_of_chain:]


def _chain(text, tags):
    """Returns the chain, and the position where the text after it starts."""
    opened = next((tag for tag in tags if tag.group() == THINK_OPEN), None)
    # The chain extends to the last closing tag, so that text inside nested or repeated think blocks
    # cannot count as an answer.
    closed = next((tag for tag in reversed(tags) if tag.group() == THINK_CLOSE), None)
    if opened is None:
        return None, closed.end() if closed else 0
    if closed is None or closed.start() < opened.end():
        return text[opened.end() :].strip(), len(text)
    # A think block that opens after the last closing tag is never closed; no text follows it.
    reopened = any(tag.group() == THINK_OPEN and tag.start() > closed.start() for tag in tags)
    end_of_chain = len(text) if reopened else closed.end()
    return text[opened.end() : closed.start()].strip(), end_of_chain


def _only_answer(text, tags):
    if [tag.group() for tag in tags] != [ANSWER_OPEN, ANSWER_CLOSE]:
        return None
    return text[tags[0].end() : tags[1].start()].strip()


def _format_fault(text, tags):
    """Returns the fault of the format, or an empty string."""
    names = [tag.group() for tag in tags]
    for tag in _EXPECTED:
        count = names.count(tag)
        if count != 1:
            return f"no {tag}" if count == 0 else f"{count} times {tag}"
    if names != _EXPECTED:
        return "tags out of order: " + " ".join(names)
    think_open, think_close, answer_open, answer_close = tags
    if text[: think_open.start()].strip():
        return f"text before {THINK_OPEN}"
    if text[think_close.end() : answer_open.start()].strip():
        return f"text between {THINK_CLOSE} and {ANSWER_OPEN}"
    if text[answer_close.end() :].strip():
        return f"text after {ANSWER_CLOSE}"
    if not has_visible(text[answer_open.end() : answer_close.start()]):
        return "the answer is empty"
    return ""
