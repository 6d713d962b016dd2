"""The R1 format rule, one case per way to break it."""

import pytest

from reasoning.response import (
    after_chain,
    opened_by,
    parse_response,
    whole_response,
    without_opening,
)

GOOD = "<think>2 + 3 is 5</think> <answer>5</answer>"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n{GOOD}\n\n",
        "<think></think><answer>5</answer>",
        "<think>a\nb</think>\n<answer>\n5\n</answer>",
        "<think>if x < 3 and y > 2</think><answer>x < y</answer>",
        "<think>a</think><answer>\u200b5</answer>",
        "<think>a</think><answer>-</answer>",
        "<think>a</think><answer>√</answer>",
        "<think>a</think><answer>সাত</answer>",
    ],
)
def test_well_formed(text):
    response = parse_response(text)
    assert response.well_formed, response.reason


def test_parts_are_stripped():
    response = parse_response("<think> 2 + 3\n= 5 </think>\n<answer> 5 </answer>")
    assert (response.chain, response.answer) == ("2 + 3\n= 5", "5")


# text, what the reason must name, the answer that may still be read.
MALFORMED = [
    ("", "no <think>", None),
    ("5", "no <think>", None),
    ("<answer>5</answer>", "no <think>", "5"),
    ("<think>a</think>", "no <answer>", None),
    ("<think>a", "no </think>", None),
    ("<think>a <answer>5</answer>", "no </think>", None),
    ("<think>a</think><answer>5", "no </answer>", None),
    ("<think>a</think>5</answer>", "no <answer>", None),
    ("<think>a <answer>5</answer></think>", "out of order", None),
    ("<think>a <answer>5</answer></think><answer>6</answer>", "2 times <answer>", "6"),
    ("<think>a</think><answer>5</answer><answer>6</answer>", "2 times <answer>", None),
    ("<think>a</think><answer>5<answer>6</answer></answer>", "2 times <answer>", None),
    ("<think>a<think>b</think></think><answer>5</answer>", "2 times <think>", "5"),
    ("<think>a</think><think>b</think><answer>5</answer>", "2 times <think>", "5"),
    ("<think>a</think><answer>5</answer><think>b</think>", "2 times <think>", None),
    ("<think>a</think><answer>5</answer><think>b", "2 times <think>", None),
    ("<think>a</think><answer><think>5</answer>", "2 times <think>", None),
    ("<answer>5</answer><think>a</think>", "out of order", None),
    ("</think><think>a<answer>5</answer>", "out of order", None),
    ("</think>a<think><answer>5</answer>", "out of order", None),
    (f"So: {GOOD}", "before <think>", "5"),
    ("<think>a</think> so <answer>5</answer>", "between", "5"),
    (f"{GOOD} Done.", "after </answer>", "5"),
    ("<think>a</think><answer> </answer>", "empty", ""),
    *(
        (f"<think>a</think><answer>{invisible}</answer>", "empty", invisible.strip())
        for invisible in (
            "\u200b",
            "\u200b\u200c\u200d\ufeff",
            "\u2060 \u00ad",
            "\u3164",
            "\u2800\u2800",
            "\u115f\u1160",
            "\x00",
            "\x1b",
            "\u202e\u202c",
            "\ufe0f",
            "\U000e0041",
            "\u00a0",
            "\u0301",
            "\u3000\u2003",
            "\u180e",
            "\ue000",
            "\U000f0000",
            "\uffa0",
            "\u034f",
        )
    ),
    ("<THINK>a</THINK><ANSWER>5</ANSWER>", "no <think>", None),
    ("<think >a</think ><answer>5</answer>", "no <think>", "5"),
]


@pytest.mark.parametrize("text, reason, answer", MALFORMED)
def test_malformed(text, reason, answer):
    response = parse_response(text)
    assert not response.well_formed
    assert reason in response.reason
    assert response.answer == answer


def test_prefilled_think_continues_the_prompt():
    completion = "2 + 3 is 5</think><answer>5</answer>"
    whole = parse_response("<think>" + completion)
    assert whole.well_formed and parse_response(whole_response("Q <think>", completion)) == whole
    assert not parse_response(completion).well_formed
    assert parse_response(completion).answer == "5"  # the closing tag ends an unseen chain
    assert not parse_response(whole_response("<think>\n", GOOD)).well_formed


def test_after_chain_hides_the_chain():
    assert after_chain(GOOD) == " <answer>5</answer>"
    assert after_chain("hidden</think>seen") == "seen"
    assert after_chain("<think>never closed") == ""
    assert after_chain("no tags") == "no tags"
    assert after_chain("<think>a</think>b<think>c</think>d") == "d"
    assert after_chain("<think>a</think>b<think>c") == ""


def test_long_text_takes_linear_time():
    response = parse_response("<think>" * 100_000 + "</think>" * 100_000 + "<answer>5</answer>")
    assert not response.well_formed and response.answer == "5"


@pytest.mark.parametrize(
    "opening",
    [
        "",
        "<think>",
        " <think>\n",
        "<think></think><answer>",
        " <think>\n</think> <answer> ",
        "<think>\n\n</think>\n\n",
    ],
)
def test_what_a_prompt_has_put_into_the_models_mouth(opening):
    """Whatever else the prompt says of tags: those of instructions open nothing."""
    for start in ("Q: 1?", "Use <think> and <answer> tags.\nA:", "<think> a </think> b <answer> c"):
        assert opened_by(start + opening) == opening


def test_what_a_prompt_opened_is_not_opened_again():
    whole = "<think> a </think> <answer> 5 </answer>"
    for prompt in ("Q", "Q <think>\n", "Q<think></think>", "Q <think></think> <answer>"):
        response = whole.replace(" a ", " ") if "</think>" in prompt else whole
        rest = without_opening(prompt, response)
        again = whole_response(prompt, rest)
        assert "".join(again.split()) == "".join(response.split())
        assert parse_response(again).well_formed
    with pytest.raises(ValueError, match="ends in '<think>', but the response does not begin"):
        without_opening("Q <think>", "5")
