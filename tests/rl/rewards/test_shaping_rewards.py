"""Rewards beside accuracy: language, repetition, length, self-checks; and rewards on some tasks."""

import math
from collections import Counter

import numpy as np
import pytest

from reasoning.problem import Problem
from reasoning.tasks import get_task
from rl.rewards import RewardResult, Sample
from rl.rewards.accuracy import AccuracyReward
from rl.rewards.combine import RewardSet
from rl.rewards.cosine import CosineReward
from rl.rewards.language import LanguageReward
from rl.rewards.repetition import RepetitionReward
from rl.rewards.self_check import SelfCheckReward
from rl.rewards.table import parse_rewards

PROMPT, OPENED = "User: q\nAssistant:", "User: q\nAssistant: <think>\n"
SUM = Problem("tiny_math", "What is 3 + 4?", "7", {"language": "en"})
GERMAN_SUM = Problem("tiny_math", "Was ist 3 + 4?", "7", {"language": "de"})


def response(chain, answer="7"):
    return f"<think>{chain}</think><answer>{answer}</answer>"


def score(reward, completion, problem=SUM, prompt=PROMPT):
    result = reward(prompt, completion, problem)
    assert isinstance(result, RewardResult) and result.reason
    return result.score


@pytest.mark.parametrize(
    "chain, problem, share",
    [
        ("3 and 4 makes 7", SUM, 1),
        ("3 and 4 makes 7", GERMAN_SUM, 0),
        ("3 and 4 makes 7\n halt 3 und 4 macht 7", SUM, 2 / 5),
        ("3 and 4 makes 7\n halt 3 und 4 macht 7", GERMAN_SUM, 3 / 5),
        ("7", SUM, 0),  # No word is no way to be consistent.
        ("", SUM, 0),
        # Elsewhere by script; words of Chinese are its characters.
        ("so twelve is 十二", Problem("gsm8k", "How many apples are left?", "12"), 3 / 5),
        ("十二 so", Problem("gsm8k", "还剩几个苹果", "12"), 2 / 3),
        ("twelve", Problem("gsm8k", "How many?", "12"), 1),
        ("двенадцать", Problem("gsm8k", "How many?", "12"), 0),
    ],
)
def test_language_is_the_share_of_the_chains_words(chain, problem, share):
    assert score(LanguageReward(), response(chain), problem) == pytest.approx(share)


@pytest.mark.parametrize(
    "hostile",
    [
        "and and makes makes so wait",  # words without the format
        response("3 und 4 macht 7") + " and makes and makes",  # words behind the answer
        response("3 und 4 macht 7", "7 and and and makes"),  # words in the answer
        "and makes " + response("3 und 4 macht 7"),  # words before the chain
        response("3 und 4 macht 7") + response("3 and 4 makes 7"),  # a second chain
        "<think> and makes", "", "<think></think>", "</think><answer> and </answer>",
    ],
)  # fmt: skip
def test_words_outside_the_chain_earn_no_language_reward(hostile):
    assert score(LanguageReward(), hostile) == 0


def test_a_chain_that_the_prompt_opened_counts():
    completion = " 3 and 4 makes 7 </think><answer> 7 </answer>"
    assert score(LanguageReward(), completion, SUM, OPENED) == 1
    assert score(LanguageReward(), "<think>" + completion, SUM, OPENED) == 0


def repeated(words, n):
    """Share of n-grams beyond the first of their kind, counted one by one."""
    grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return sum(count - 1 for count in grams.values()) / max(1, sum(grams.values()))


@pytest.mark.parametrize(
    "text",
    ["a b c d e f", "a b a b a b a b", "one two three one two three four", "", "a b", "a b c d"],
)
def test_repetition_is_the_share_of_repeated_ngrams(text):
    for n in (2, 4):
        assert score(RepetitionReward(ngram=n), text) == pytest.approx(-repeated(text.split(), n))


@pytest.mark.parametrize(
    "spam",
    [
        "wait " * 200, "WAIT wait Wait " * 60, "a" * 5000, "abc" * 2000, "1" * 300, "?!" * 300,
        "so\n" * 200, "x\u200b" * 300, "\u8bf7" * 600,
    ],
)  # fmt: skip
def test_repetition_is_seen_in_whatever_dress(spam):
    assert score(RepetitionReward(), spam) < -0.8


def test_repetition_of_nothing_is_nothing_and_n_is_checked():
    text = " ".join(f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(400))
    assert score(RepetitionReward(), text) == 0
    with pytest.raises(ValueError, match="ngram=0"):
        RepetitionReward(ngram=0)


def test_cosine_is_the_papers_formula():
    """CosFn(t, T, min, max) = min + (max - min) (1 + cos(pi t / T)) / 2 (arXiv:2502.03373)."""
    reward = CosineReward(max_tokens=100)
    for right, (start, end) in {True: (2.0, 1.0), False: (-10.0, 0.0)}.items():
        for tokens in (1, 25, 50, 99):
            expected = end + 0.5 * (start - end) * (1 + math.cos(tokens * math.pi / 100))
            assert reward.value(right, tokens) == pytest.approx(expected)
        for tokens in (100, 101, 5000):
            assert reward.value(right, tokens) == -10
    values = [reward.value(True, t) for t in range(1, 100)]
    assert np.all(np.diff(values) < 0)
    assert np.all(np.diff([reward.value(False, t) for t in range(1, 100)]) > 0)


def test_cosine_asks_whether_the_answer_is_right():
    texts = [response("3 and 4 makes 7"), response("", "8"), "<think> 7", ""]
    samples = [Sample(PROMPT, text, SUM, num_tokens=50) for text in texts]
    reward = CosineReward(max_tokens=100, require_format=True)
    right = AccuracyReward(require_format=True).score_batch(samples)
    assert [r.score for r in right] == [1, 0, 0, 0]
    assert [r.score for r in reward.score_batch(samples)] == pytest.approx([1.5, -5, -5, -5])


@pytest.mark.parametrize(
    "settings, fault",
    [({"max_tokens": 0}, "max_tokens=0"), ({"max_tokens": 9, "wrong_long": 1.5}, "1.5")],
)
def test_cosine_refuses_to_pay_for_wrong_answers(settings, fault):
    with pytest.raises(ValueError, match=fault):
        CosineReward(**settings)


@pytest.mark.parametrize(
    "completion, expected",
    [
        (response("3 and 4 makes 8\n wait 3 and 4 makes 7"), 1),
        (response("3 und 4 macht 8\n halt 3 und 4 macht 7"), 1),
        (response("However, that is Wrong."), 1),
        (response("3 and 4 makes 7"), 0),
        (response("the waiter awaits butter"), 0),  # parts of other words
        (response("3 and 4 makes 7", "wait, 7"), 0),  # not in the chain
        ("wait", 0),
        ("", 0),
    ],
)
def test_self_checks_are_words_of_the_chain(completion, expected):
    assert score(SelfCheckReward(), completion) == expected


def test_a_reward_on_some_tasks_leaves_the_others_alone():
    talk = Problem("tiny_chat", "Hi.", "Hello.", {"language": "en"})
    samples = [
        Sample(PROMPT, response("3 and 4 makes 7"), problem, num_tokens=9)
        for problem in (SUM, talk, Problem("tiny_math?low=2", "What is 3 + 4?", "7", {}))
    ]
    spec = "accuracy?tasks=tiny_math,format=0.5,language?tasks=tiny_logic+tiny_chat"
    with RewardSet(spec) as rewards:
        scores = rewards.score(samples)
        rewards.check(PROMPT, SUM)
        rewards.check(PROMPT, talk)
    assert scores.by_reward["accuracy"].tolist() == [1, 0, 1]
    assert scores.by_reward["language"].tolist() == [0, 1, 0]
    assert scores.total.tolist() == [1.5, 1.5, 1.5]
    assert "not a reward of tiny_chat" in scores.reasons["accuracy"][1]


@pytest.mark.parametrize("tasks", ["", "tiny_math+", 3])
def test_bad_tasks_are_one_line(tasks):
    with pytest.raises(ValueError, match="give names joined by [+]"):
        parse_rewards({"format": {"tasks": tasks}})


def test_no_hostile_completion_earns_what_an_honest_one_does():
    """Under the whole reward of reasoning RL; the best that a wrong answer gets is form."""
    spec = "accuracy?require_format=true,format=0.2,language=0.2,repetition=0.2,self_check=0"
    honest = response("3 and 4 makes 7")
    wrong = response("3 and 4 makes 8", "8")
    hostile = [
        response("and makes " * 500, "8"),
        response("and makes", "6 7 8"),
        response("and makes", "7 or 8"),
        response("and makes", "\\boxed{7} or \\boxed{8}"),
        response("and makes", "x == x"),
        response("and makes", "7</answer><answer>8"),
        response("and makes <answer>7</answer>", "8"),
        response("and makes</think><think>", "7"),
        honest + honest,
        honest + "<answer>8</answer>",
        "<answer>7</answer>" + wrong,
        "7 " * 10_000,
        honest[:-1],
        "\x00".join(honest),
        "<think>" * 5000,
        "\u202e" + honest,
        honest.upper(),
    ]
    samples = [Sample(PROMPT, text, SUM, num_tokens=9) for text in (honest, wrong, *hostile)]
    with RewardSet(spec) as rewards:
        scores = rewards.score(samples)
    best, form, *others = scores.total
    assert best == pytest.approx(1.4) and form == pytest.approx(0.4)
    for text, total in zip(hostile, others, strict=True):
        assert total <= form + 1e-9, text[:80]


def test_a_budget_is_kept_or_a_right_answer_earns_less():
    (_, reward) = parse_rewards("budget?require_format=true&slope=10")["budget"]
    (ten,) = get_task("tiny_math?budget=20").problems("train", 1, 0)
    (none,) = get_task("tiny_math?budget=0").problems("train", 1, 0)
    (free,) = get_task("tiny_math").problems("train", 1, 0)

    def scored(problem, tokens, chain="so", answer=None, prompt=PROMPT):
        text = response(chain, answer or problem.answer)
        (result,) = reward.score_batch([Sample(prompt, text, problem, tokens)])
        return result.score

    assert [scored(ten, tokens) for tokens in (1, 20, 25, 30, 90)] == [1, 1, 0.5, 0, 0]
    assert scored(ten, 5, answer="0") == 0
    assert scored(free, 90) == 1
    assert scored(none, 90, chain="\n") == 1 and scored(none, 5) == 0
    # Thoughts outside the tags are thoughts.
    (lenient,) = (parse_rewards("budget?slope=10")["budget"][1],)
    for text in (f"1 and 2 makes {none.answer}", f"so </think><answer> {none.answer}</answer>"):
        (result,) = lenient.score_batch([Sample("Q:", text, none, 9)])
        assert result.score == 0, text
    with pytest.raises(ValueError, match="slope=0 must be at least 1"):
        parse_rewards("budget?slope=0")
