"""Tests which sampled responses are kept, and the reason why each other one is dropped."""

import random

import pytest

from reasoning.problem import Problem
from reasoning.training_data.curation import (
    Decontaminator,
    Deduplicator,
    Readability,
    VerifiedSample,
    curate,
)

SUM = Problem("tiny_math", "What is 3 + 4 + 2?", "9", {"language": "en"})
CHAIN = " 3 and 4 makes 7\n 7 and 2 makes 9\n"


def response(chain=CHAIN, answer=" 9"):
    return f" <think>\n{chain}</think><answer>{answer}</answer>"


def candidate(text, correct=True, problem=SUM):
    return VerifiedSample(problem, "Q ", text, correct)


@pytest.mark.parametrize(
    "text, fault",
    [
        (response(), None),
        (response(CHAIN + " wait 7 and 2 makes 9\n"), None),
        ("9", "not well formed"),
        (response() + " and", "not well formed"),
        (response(""), "chain too short"),
        (response(" 9\n"), "chain too short"),
        (response("".join(f" step {i}\n" for i in range(11))), "too long"),
        (response(" one\n" + " word" * 41), "too long"),
        (response("```\nprint(9)\n```\n"), "code block"),
        (response(CHAIN + "\x00"), "unprintable"),
        (response(CHAIN + "\ufffd"), "unprintable"),
        (response(CHAIN * 4), "repetitive"),
        (response(" 3 and 4 makes 7\n 7 und 2 macht 9\n"), "mixed languages"),
        (response(" 3 und 4 macht 7\n 7 und 2 macht 9\n"), "mixed languages"),
        (response(" 3 4 7\n 7 2 9\n"), None),  # no word to be in another language
    ],
)
def test_readability(text, fault):
    found = Readability(min_lines=2, max_lines=10, max_line_words=40).fault(text, SUM)
    assert found is None if fault is None else fault in found


def test_share_of_the_language_is_a_setting():
    text = response(" 3 and 4 makes 7\n 7 und 2 macht 9\n")
    assert Readability(min_consistency=0.5).fault(text, SUM) is None


def shares_a_run(one, other, n):
    """Brute force over words between blanks."""
    one, other = one.split(), other.split()
    n = min(n, len(other))
    return any(
        one[i : i + n] == other[j : j + n]
        for i in range(len(one) - n + 1)
        for j in range(len(other) - n + 1)
    )


@pytest.mark.parametrize("n", [1, 2, 4, 13])
def test_decontamination_is_a_common_run_of_words(n):
    rng = random.Random(n)
    agreed = []
    for _ in range(300):
        held_out, text = (" ".join(rng.choices("abcd", k=rng.randint(1, 14))) for _ in range(2))
        found = Decontaminator([held_out], n).shared(text)
        agreed.append(shares_a_run(text, held_out, n))
        assert (found is not None) == agreed[-1]
        assert found is None or f" {found} " in f" {text} "
    assert any(agreed) and (n == 1 or not all(agreed))


def test_decontamination_sees_through_case_and_spacing():
    clean = Decontaminator(["What is 3 + 4 + 2?"], n=6)
    assert clean.shared("Compute:\nwhat   IS 3+4 + 2 ?")
    assert clean.shared("is 3 + 4 + 2, and then") == "is 3 + 4 + 2"
    assert clean.shared("What is 3 + 4 - 2?") is None
    assert Decontaminator(["", "  "]).shared("anything") is None
    with pytest.raises(ValueError, match="n=0"):
        Decontaminator(["a"], 0)


def test_deduplication():
    seen = Deduplicator(max_overlap=0.6)
    long = "one two three four five six seven eight nine ten eleven twelve"
    assert seen.is_new("q", long)
    assert not seen.is_new("q", long)
    assert not seen.is_new("Q ", long.upper().replace(" ", "\n"))  # the same words
    assert seen.is_new("another q", long)
    # One more word: 8 of 9 5-grams are shared. Five more: 8 of 13.
    assert not seen.is_new("q", long + " more")
    assert not seen.is_new("q", long + " a b c d e")
    assert seen.is_new("q", long + " a b c d e f g")  # 8 of 15
    assert (
        Deduplicator().is_new("q", "") and seen.is_new("q", "short") and seen.is_new("q", "brief")
    )


def test_curate_counts_every_candidate_once_and_keeps_order():
    other = Problem("tiny_math", "Compute 1 + 1 + 1.", "3", {"language": "en"})
    held_out = Problem("tiny_math", "What is 9 + 9 + 9?", "27", {"language": "en"})
    good = response(" 1 and 1 makes 2\n 2 and 1 makes 3\n", " 3")
    more = [response(CHAIN + f" wait {n} and 2 makes 9\n so {n}\n" * 1) for n in ("7", "five")]
    candidates = [
        candidate(response(), correct=False),
        candidate(response()),
        candidate(good, problem=other),
        candidate(response()),
        candidate("9"),
        candidate(response(" 9 and 9 makes 18\n", " 27"), problem=held_out),
        *map(candidate, more),
    ]
    kept, counts = curate(
        candidates, Readability(), Decontaminator([held_out.question], n=8), per_problem=2,
        max_overlap=0.95,
    )  # fmt: skip
    assert [each.response for each in kept] == [response(), good, more[0]]
    assert counts == {
        "sampled": 8, "kept": 3, "wrong": 1, "not well formed": 1, "duplicate": 1,
        "shared with the evaluation": 1, "enough of this problem": 1,
    }  # fmt: skip
    assert kept[0].record() == {
        "prompt": "Q ", "response": response(), "task": "tiny_math", "question": SUM.question,
        "answer": "9",
    }  # fmt: skip
