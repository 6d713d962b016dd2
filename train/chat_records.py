"""Turns chats into pieces of text to train on, and refuses chats that would lose text.

A chat template may leave out, rewrite or misprint parts of an assistant's message. Every part of
such a message must be in the text that is trained on; otherwise the record is an error.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.tokens.tokenizer import Tokenizer

# (text, whether it is trained on, whether an end-of-sequence token follows).
Piece = tuple[str, bool, bool]

# Besides "messages", the chat template gets these fields of a record.
VARIABLES = ("tools", "enable_thinking", "chat_template_kwargs")

# Fields that describe an assistant's message and hold none of its text.
_ABOUT = ("role", "name", "id")
_THINK_TAG = re.compile(r"(</?think>)")
_THINK_OPEN = "<think>"


def chat_pieces(
    record: Mapping[str, Any], tokenizer: Tokenizer, *, allow_empty: bool = False
) -> list[Piece]:
    """Splits the rendered chat into consecutive texts; the assistant's turns are trained on.

    Args:
      record: holds `messages`, and perhaps `tools`, `enable_thinking` and `chat_template_kwargs`
        for the template.
      allow_empty: whether an assistant's turn may say nothing.

    Raises:
      ValueError: a malformed message, an empty turn, a part of a turn that the template drops, a
        variable that it does not read, or a template that rewrites earlier turns.
    """
    variables = _variables(record, tokenizer)
    messages = [_checked(message, i) for i, message in enumerate(_messages(record["messages"]))]

    def render(messages: Sequence[Mapping[str, Any]], open_turn: bool = False) -> str:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=open_turn, **variables)

    pieces, done = [], ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if not allow_empty and not any(_parts(message)):
            raise ValueError(f"message {i} of the assistant is empty: there is nothing to train on")
        before = messages[:i]
        prompt = render(before, True)
        message, full = _rendered(before, message, prompt, render)
        if not prompt.startswith(done) or not full.startswith(prompt):
            raise ValueError(_rewrites(render(before), prompt, full))
        _check_kept(before, message, prompt, render, i)
        messages[i] = message
        pieces += [(prompt[len(done) :], False, False), (full[len(prompt) :], True, False)]
        done = full
    if not pieces:
        raise ValueError("'messages' has no assistant turn to train on")
    _check_tools(variables.get("tools"), done)
    return pieces


Render = Callable[..., str]


def _messages(messages: Any) -> list[Mapping[str, Any]]:
    if not isinstance(messages, list) or not all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages
    ):
        raise ValueError("'messages' must be a list of objects with 'role' and 'content'")
    return messages


def _variables(record: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the template's variables besides the messages; the template must read them all."""
    variables = record.get("chat_template_kwargs") or {}
    if not isinstance(variables, Mapping):
        raise ValueError(f"'chat_template_kwargs' is {variables!r:.80}; it must be an object")
    variables = dict(variables)
    for name in ("tools", "enable_thinking"):
        if record.get(name) is not None:
            variables[name] = record[name]
    tools = variables.get("tools")
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)
    ):
        raise ValueError(f"'tools' is {tools!r:.80}; it must be a list of objects")
    for tool in tools or ():
        _tool_name(tool)
    thinking = variables.get("enable_thinking")
    if thinking is not None and not isinstance(thinking, bool):
        raise ValueError(f"'enable_thinking' is {thinking!r:.80}; it must be true or false")
    for name, value in variables.items():
        if name in ("messages", "add_generation_prompt"):
            raise ValueError(f"'chat_template_kwargs' must not hold {name!r}")
        if value not in (None, []) and tokenizer.template and not tokenizer.template_reads(name):
            raise ValueError(
                f"the chat template does not read {name!r}, which the record gives it; remove it"
                " from the record, or use another template"
            )
    return variables


def _checked(message: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Returns the message, checked, with its content as one text."""
    message, content = dict(message), message.get("content")
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(
                    f"message {i}: 'content' holds {part!r:.80}; only parts of type 'text' can be"
                    " trained on"
                )
        message["content"] = content = "".join(part["text"] for part in content)
    if message["role"] == "assistant":
        if content is not None and not isinstance(content, str):
            kind = type(content).__name__
            raise ValueError(f"message {i}: 'content' is a {kind}; it must be text, a list or null")
        _calls(message, i)
    elif not isinstance(content, str):
        kind = "missing" if "content" not in message else f"a {type(content).__name__}"
        raise ValueError(f"message {i}: 'content' is {kind}; it must be text")
    return message


def _calls(message: Mapping[str, Any], i: int) -> list[Mapping[str, Any]]:
    """Returns the functions that a message calls, each with `name` and `arguments`."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise ValueError(f"message {i}: 'tool_calls' is {calls!r:.80}, not a list of objects")
    functions = [call.get("function", call) for call in calls]
    for function in functions:
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"message {i}: 'tool_calls' holds {function!r:.80}, without a 'name'")
    return functions


def _parts(message: Mapping[str, Any]) -> list[Any]:
    """Returns the parts of a message that are not blank."""
    values = [value for name, value in message.items() if name not in _ABOUT]
    return [value for value in values if (value.strip() if isinstance(value, str) else value)]


def _rendered(
    before: Sequence[Mapping[str, Any]], message: dict[str, Any], prompt: str, render: Render
) -> tuple[dict[str, Any], str]:
    """Returns the message and the rendered chat that ends with it.

    Some templates need null as empty content; others fail on null or print it as "None". For the
    latter, null becomes empty text.
    """
    if message.get("content") is None:
        null = {**message, "content": None}
        try:
            full = render([*before, null])
        except ValueError:
            full = "None"
        if "None" not in full.removeprefix(prompt):
            return null, full
        message = {**message, "content": ""}
    return message, render([*before, message])


def _rewrites(closed: str, prompt: str, full: str) -> str:
    """Says why a turn does not continue its prompt."""
    if full.startswith(closed) and _THINK_OPEN in prompt[len(closed) :]:
        return (
            f"the chat template opens {_THINK_OPEN} in its generation prompt, but renders the"
            " assistant's turn without it, so this turn cannot be trained as it is sampled; give"
            " the record as 'prompt' and 'response', or use another template"
        )
    return (
        "the chat template rewrites earlier turns (some drop their thinking), so this is not one"
        " sequence; give each assistant turn a record with 'prompt' and 'response'"
    )


def _check_kept(
    before: Sequence[Mapping[str, Any]],
    message: Mapping[str, Any],
    prompt: str,
    render: Render,
    i: int,
) -> None:
    """Raises `ValueError` for the first part of a message that its rendered turn lacks.

    The function renders the message again with a mark in every part, and looks for each mark. So
    it does not matter how a template trims, escapes or orders the parts.
    """
    marks = _Marks(message)
    marked = {name: marks.mark(name, value) for name, value in message.items()}
    if not marks.names:
        return
    turn = render([*before, marked])[len(prompt) :]
    for mark, name in marks.names.items():
        if mark not in turn:
            raise ValueError(
                f"message {i}: the chat template drops {name} of the assistant's turn; remove it"
                " from the record, use another template, or give the record as 'prompt' and"
                " 'response'"
            )


class _Marks:
    """Puts a distinct mark into every part of a message, and remembers the part of each mark."""

    def __init__(self, message: Mapping[str, Any]):
        text = json.dumps(message, ensure_ascii=False)
        self._stem = "Qz"
        while self._stem in text:
            self._stem += "z"
        self._number = 7_340_000
        while str(self._number)[:3] in text:  # So that no number of the message looks like a mark.
            self._number *= 10
        self.names: dict[str, str] = {}

    def mark(self, name: str, value: Any) -> Any:
        """Returns a field's value with marks in it."""
        if name in _ABOUT:
            return value
        if name == "tool_calls":
            return [self._call(call) for call in value or ()] or value
        if isinstance(value, str):
            return self._text(value, f"{name!r}")
        return self._leaves(value, f"{name!r}", numbers=False)

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        if "function" in call:
            return {**call, "function": self._call(call["function"])}
        marked = dict(call)
        for field in ("name", "arguments"):
            if field in call:
                what = f"the {field} {call[field]!r:.60} in 'tool_calls'"
                marked[field] = self._leaves(call[field], what, numbers=True)
        return marked

    def _leaves(self, value: Any, what: str, numbers: bool) -> Any:
        """Marks all texts of nested values, and replaces their numbers by marks."""
        if isinstance(value, Mapping):
            return {key: self._leaves(each, what, numbers) for key, each in value.items()}
        if isinstance(value, list):
            return [self._leaves(each, what, numbers) for each in value]
        if isinstance(value, str):
            return self._end(value, what) if value.strip() else value
        if not numbers:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._number += 1
            self.names[str(self._number)] = what
            return self._number
        return self._end("", what)

    def _text(self, text: str, what: str) -> str:
        """Puts a mark at the end of each part between think tags."""
        parts = _THINK_TAG.split(text)
        inside = False
        for i, part in enumerate(parts):
            if i % 2:
                inside = part == _THINK_OPEN
            elif part.strip():
                # A chain without an opening tag is recognised by its closing tag.
                chain = inside or parts[i + 1 : i + 2] == ["</think>"]
                parts[i] = self._end(part, f"the chain of thought in {what}" if chain else what)
        return "".join(parts)

    def _end(self, text: str, what: str) -> str:
        """Puts a mark at the end of the text, before white space that a template may strip."""
        mark = f"{self._stem}{len(self.names)}Q"
        self.names[mark] = what
        bare = text.rstrip()
        return bare + mark + text[len(bare) :]


def _check_tools(tools: Sequence[Mapping[str, Any]] | None, text: str) -> None:
    """Raises `ValueError` if the rendered chat does not name a tool."""
    for name in map(_tool_name, tools or ()):
        if name not in text:
            raise ValueError(f"the chat template drops the tool {name!r} of 'tools'")


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"'tools' holds {tool!r:.80}, which has no 'name'")
    return name
