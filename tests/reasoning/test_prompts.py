"""Prompt templates."""

import pytest

from models.tokens.tokenizer_training import train_bpe
from reasoning.prompts import CHAT_TEMPLATE, TEMPLATES, few_shot, get_template

QUESTION = "What is {0} in {question}? {{ 7 * 7 }} {% if %}"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["User"], 260, eos_token="<eos>", template=CHAT_TEMPLATE)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_question_enters_as_it_is(name, tokenizer):
    prompt = get_template(name, tokenizer)(QUESTION)
    start = {"cot": " Let's think step by step.\n", "think": " <think>\n"}.get(name, "")
    assert prompt.count(QUESTION) == 1 and prompt.endswith("Assistant:" + start)
    assert ("<think>" in prompt) == (name in ("think", "r1_zero", "chat_r1"))
    assert ("<answer>" in prompt) == (name in ("r1_zero", "chat_r1"))


def test_written_out(tokenizer):
    plain = "User: 1 + 1?\nAssistant:"
    assert get_template("plain", tokenizer)("1 + 1?") == plain
    # Here the chat template is the bare turns, so that SFT and evaluation agree.
    assert get_template("chat", tokenizer)("1 + 1?") == plain
    r1 = get_template("r1_zero", tokenizer)("1 + 1?")
    assert r1.startswith("A conversation between User and Assistant.")
    assert r1.endswith("answer here </answer>. User: 1 + 1?. Assistant:")
    system, user = get_template("chat_r1", tokenizer)("1 + 1?").split("\n", 1)
    assert "step by step" in system and user == plain


def test_a_chat_template_is_needed_when_it_is_asked_for():
    bare = train_bpe(["User"], 260, eos_token="<eos>")
    assert get_template("plain", bare)("q") and get_template("r1_zero", bare)("q")
    for name in ("chat", "chat_r1"):
        with pytest.raises(ValueError, match="no chat template"):
            get_template(name, bare)


def test_variables_reach_the_chat_template():
    template = CHAT_TEMPLATE + "{% if enable_thinking is false %}<think></think>{% endif %}"
    thinker = train_bpe(["User"], 260, eos_token="<eos>", template=template)
    assert get_template("chat?enable_thinking=false", thinker)("q").endswith("<think></think>")
    assert get_template("chat?enable_thinking=true", thinker)("q").endswith("Assistant:")
    for name in ("chat?thinking=false", "plain?enable_thinking=false"):
        with pytest.raises(ValueError, match="nothing reads '.*thinking'"):
            get_template(name, thinker)


def test_worked_examples_precede_the_question(tokenizer):
    plain = get_template("plain", tokenizer)
    prompt = few_shot(plain, [("1?", " so 1"), ("2?", " so 2")])("3?")
    assert prompt == ("User: 1?\nAssistant: so 1\nUser: 2?\nAssistant: so 2\nUser: 3?\nAssistant:")
    with pytest.raises(ValueError, match="without examples"):
        few_shot(plain, [])


def test_unknown_name(tokenizer):
    with pytest.raises(ValueError, match="template='r1zero' is unknown; choose one of plain"):
        get_template("r1zero", tokenizer)
