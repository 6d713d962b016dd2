"""A response by chunks: the same text, and tags that are found wherever the chunks are cut."""

import itertools

import jax
import pytest

from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.generation.streaming import ANSWERING, THINKING, split_thinking, stream, until
from reasoning.response import after_chain
from tests.models.gguf import gguf_files

GREEDY = SamplingParams(temperature=0.0)


def joined(pairs):
    """Text of each kind, in the order in which they came."""
    return [
        (kind, "".join(text for _, text in group))
        for kind, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


@pytest.mark.parametrize(("text", "opened", "expected"), [
    ("hello", False, [(ANSWERING, "hello")]),
    ("<think>a b</think> <answer>4</answer>", False, [(THINKING, "a b"), (ANSWERING, " 4")]),
    ("a b</think>4", True, [(THINKING, "a b"), (ANSWERING, "4")]),
    ("never closed", True, [(THINKING, "never closed")]),
    ("1 < 2 <thin <", False, [(ANSWERING, "1 < 2 <thin <")]),
    ("x<think>y", False, [(ANSWERING, "x"), (THINKING, "y")]),
    ("<think></think>", False, []),
])  # fmt: skip
def test_thinking_is_told_apart_wherever_chunks_are_cut(text, opened, expected):
    for size in range(1, len(text) + 1):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert joined(split_thinking(chunks, opened)) == expected
    answer = "".join(part for kind, part in expected if kind == ANSWERING)
    whole = after_chain("<think>" * opened + text)
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


@pytest.mark.parametrize("size", range(1, 9))
def test_until_ends_before_the_text(size):
    text = "yes\nUs it is.\nUser: no"
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(until(chunks, "\nUser:")) == "yes\nUs it is."
    assert "".join(until(chunks, "\nOther:")) == text


@pytest.fixture(scope="module")
def model():
    config = gguf_files.BASE.replace(vocab_size=400)
    model, tokenizer = LanguageModel(config), gguf_files.make_tokenizer()
    return model, jax.jit(model.init)(jax.random.key(3)), tokenizer


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_the_chunks_are_the_response(model, chunk):
    for prompt in ("The quick", "7 + 5 ="):
        expected = JaxGenerator(*model, rows=1).generate(
            [prompt], max_new_tokens=40, sampling=GREEDY
        )[0][0]
        chunks = list(
            stream(
                JaxStepGenerator(*model), prompt,
                max_new_tokens=40, chunk_tokens=chunk, sampling=GREEDY,
            )  # fmt: skip
        )
        assert "".join(chunks) == expected.text
        assert len(chunks) >= len(expected.token_ids) // chunk
