"""Training records that are wrong in one way each, and what the error must say.

`python -m tests.bad_inputs` counts how many of them give one clear line.
"""

import json
from pathlib import Path
from typing import Any

from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe
from train.data import load_examples

_TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|assistant|>{{ TURN }}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>OPEN{% endif %}"
)


def _turns(turn: str, opening: str = "") -> str:
    return _TURNS.replace("{{ TURN }}", turn).replace("OPEN", opening)


# By what they do with an assistant's turn, as published templates do it.
TEMPLATES = {
    "plain": _turns("{{ m.content }}"),
    # Keeps the answer only.
    "drops the chain": _turns("{{ m.content.split('</think>')[-1] }}"),
    # So does this one, and begins the chain for the model.
    "opens the chain": _turns("{{ m.content.split('</think>')[-1] }}", "<think>\n"),
    "renders all": "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
    "{% if enable_thinking %}{% endif %}" + _turns(
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
        "{{ m.content }}{% for call in m.tool_calls or [] %}"
        "{% set call = call.function or call %}{{ call.name }}({{ call.arguments|tojson }})"
        "{% endfor %}"
    ),
    # Knows that there are tools, and does not say which.
    "counts tools": "{% if tools %}{{ tools|length }} tools{% endif %}" + _turns("{{ m.content }}"),
    # Has no place for a text beside calls, and none for numbers.
    "calls only": _turns(
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% else %}{{ m.content }}"
        "{% endif %}"
    ),
}  # fmt: skip


def tokenizer_with(template: str) -> Tokenizer:
    base = train_bpe(
        ["What is it? 12 + 3"] * 3, 300, special_tokens=["<|user|>", "<|assistant|>"],
        eos_token="<eos>",
    )  # fmt: skip
    return Tokenizer(base._backend, {"eos_token": "<eos>"}, TEMPLATES[template])


USER = {"role": "user", "content": "2 + 2?"}


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", **message}]}


def call(arguments: Any, **more: Any) -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    return said(tool_calls=[{"type": "function", "id": "1", "function": function}], **more)


TOOL = {"type": "function", "function": {"name": "add"}}
# Name -> (template, record or raw line, what the error must contain).
RECORDS: dict[str, tuple[str, Any, str]] = {
    "a chain that is dropped": (
        "drops the chain", said(content="<think>so</think>4"), "drops the chain of thought"
    ),
    "a chain without its opening tag": (
        "drops the chain", said(content="so</think>4"), "drops the chain of thought"
    ),
    "a chain that the prompt opens": (
        "opens the chain", said(content="<think>so</think>4"), "opens <think> in its generation"
    ),
    "an answer behind an opened chain": ("opens the chain", said(content="4"), "opens <think>"),
    "reasoning_content": ("plain", said(content="4", reasoning_content="so"), "reasoning_content"),
    "reasoning_content that the answer holds": (
        "plain", said(content="4", reasoning_content="4"), "reasoning_content"
    ),
    "another field for the chain": ("renders all", said(content="4", thinking="so"), "'thinking'"),
    "nested parts": ("renders all", said(content="4", notes=[{"a": "so"}]), "'notes'"),
    "tool_calls": ("plain", call({"a": 2}, content=""), "the name 'add'"),
    "tool_calls beside a text": ("calls only", call({}, content="I add"), "drops 'content'"),
    "arguments": ("calls only", call({"a": "x"}), "the arguments"),
    "numbers as arguments": ("calls only", call({"a": 2}), "the arguments"),
    "truth values as arguments": ("calls only", call({"a": [True]}), "the arguments"),
    "the second of two calls": (
        "calls only",
        said(tool_calls=[{"function": {"name": n, "arguments": {}}} for n in ("add", "sub")]),
        "'sub'",
    ),
    "tool_calls that are text": ("renders all", said(tool_calls="add(2)"), "'add(2)'"),
    "a call without a name": ("renders all", said(tool_calls=[{"arguments": {}}]), "'name'"),
    "content null": ("plain", said(content=None), "empty"),
    "no content": ("plain", said(), "empty"),
    "empty content": ("plain", said(content=" \n"), "empty"),
    "an empty list": ("plain", said(content=[]), "empty"),
    "an image": ("plain", said(content=[{"type": "image_url", "image_url": "x"}]), "image_url"),
    "a number as content": ("plain", said(content=4), "'content' is a int"),
    "a user who says null": (
        "plain",
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "4"}]},
        "message 0: 'content' is a NoneType",
    ),
    "a user without content": (
        "plain",
        {"messages": [{"role": "user"}, {"role": "assistant", "content": "4"}]},
        "message 0: 'content' is missing",
    ),
    "an empty response": ("plain", {"prompt": "2 + 2?", "response": ""}, "'response' is empty"),
    "a blank response": ("plain", {"prompt": "2 + 2?", "response": " \n"}, "'response' is empty"),
    "an empty text": ("plain", {"text": ""}, "'text' is empty"),
    "no assistant": ("plain", {"messages": [USER]}, "no assistant turn"),
    "no messages": ("plain", {"messages": []}, "no assistant turn"),
    "messages without roles": ("plain", {"messages": [{"content": "4"}]}, "'role'"),
    "tools that the template ignores": (
        "plain", said(content="4") | {"tools": [TOOL]}, "does not read 'tools'"
    ),
    "tools that the template does not name": (
        "counts tools", said(content="4") | {"tools": [TOOL]}, "drops the tool 'add'"
    ),
    "tools without names": ("renders all", said(content="4") | {"tools": [{}]}, "'name'"),
    "tools as text": ("renders all", said(content="4") | {"tools": "[]"}, "'[]'"),
    "enable_thinking that the template ignores": (
        "plain", said(content="4") | {"enable_thinking": False}, "does not read 'enable_thinking'"
    ),
    "enable_thinking as text": (
        "renders all", said(content="4") | {"enable_thinking": "no"}, "'no'"
    ),
    "variables that nothing reads": (
        "renders all", said(content="4") | {"chat_template_kwargs": {"x": 1}}, "read 'x'"
    ),
    "variables that hide the messages": (
        "renders all", said(content="4") | {"chat_template_kwargs": {"messages": []}}, "'messages'"
    ),
    "variables as a list": (
        "renders all", said(content="4") | {"chat_template_kwargs": [1]}, "[1]"
    ),
    "no kind of record": ("plain", {"question": "2 + 2?", "answer": "4"}, "answer, question"),
    "a response that is a number": ("plain", {"prompt": "2 + 2?", "response": 4}, "a int"),
    "nested too deeply": ("plain", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "a lone surrogate": ("plain", b'{"text": "a\\ud800"}', "surrogate"),
    "10,000 digits": ("plain", b'{"text": "a", "n": ' + b"9" * 10_000 + b"}", "digits"),
    "Latin-1": ("plain", '{"text": "Größe"}'.encode("latin-1"), "UTF-8"),
    "UTF-16": ("plain", '{"text": "a"}'.encode("utf-16"), "UTF-8"),
    "no JSON": ("plain", b"{'text': 'a'}", "no JSON"),
    "a list": ("plain", b"[1]", "not list"),
    "a huge line": ("plain", b'{"text": "' + b"a" * (65 * 2**20) + b'"}', "32 MiB"),
}  # fmt: skip


def outcome(directory: Path, template: str, record: Any) -> Exception | None:
    """What a file raises whose second line is this record."""
    line = record if isinstance(record, bytes) else json.dumps(record).encode()
    (directory / "data.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    try:
        load_examples(directory / "data.jsonl", tokenizer_with(template))
    except Exception as error:
        return error
    return None
