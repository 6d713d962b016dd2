"""The chain and the answer of a response are told apart wherever its chunks are cut."""

import itertools

import pytest

from reasoning.hidden_reasoning import ANSWERING, THINKING, split_thinking
from reasoning.response import after_chain


def joined(pairs):
    """Text of each kind, in the order in which they came."""
    return [
        (kind, "".join(text for _, text in group))
        for kind, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


@pytest.mark.parametrize(("text", "opening", "expected"), [
    ("hello", "", [(ANSWERING, "hello")]),
    ("<think>a b</think> <answer>4</answer>", "", [(THINKING, "a b"), (ANSWERING, " 4")]),
    ("a b</think>4", "<think>\n", [(THINKING, "a b"), (ANSWERING, "4")]),
    ("never closed", "<think>\n", [(THINKING, "never closed")]),
    ("1 < 2 <thin <", "", [(ANSWERING, "1 < 2 <thin <")]),
    ("x<think>y", "", [(ANSWERING, "x"), (THINKING, "y")]),
    ("<think></think>", "", []),
    ("4", "<think></think>", [(ANSWERING, "4")]),
])  # fmt: skip
def test_thinking_is_told_apart_wherever_chunks_are_cut(text, opening, expected):
    for size in range(1, len(text) + 1):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert joined(split_thinking(chunks, opening)) == expected
    answer = "".join(part for kind, part in expected if kind == ANSWERING)
    whole = after_chain(opening + text)
    if "x<think>" not in text:  # What stands before the chain is no answer, but it is shown.
        assert whole.replace("<answer>", "").replace("</answer>", "") == answer


def test_text_is_given_out_as_soon_as_it_is_no_tag():
    seen = []

    def chunks():
        for chunk in ["a", "<", "b", "<thi", "nk>", "c"]:
            yield chunk
            seen.append(list(found))

    found = []
    for each in split_thinking(chunks()):
        found.append(each)
    assert [len(each) for each in seen][:4] == [1, 1, 2, 2]
    assert joined(found) == [(ANSWERING, "a<b"), (THINKING, "c")]
