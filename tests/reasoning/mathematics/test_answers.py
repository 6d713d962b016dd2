"""Tests the extraction of the final answer."""

import time

import pytest

from reasoning.mathematics.answers import extract_answer, last_boxed

CASES = [
    # Inside the R1 format.
    ("<think>5</think><answer>18</answer>", "18"),
    ("<think>5</think><answer> $18$. </answer>", "18"),
    (r"<think>5</think><answer>So it is \boxed{18}.</answer>", "18"),
    ("<think>5</think><answer>The answer is 18 dollars.</answer>", "18 dollars"),
    ("<think>5</think><answer>18 or 26</answer>", "18 or 26"),
    ("<think>5</think><answer>26 18</answer>", "26 18"),
    ("<answer>18</answer> and again <answer> 18 </answer>", "18"),
    ("<answer>18</answer><answer>26</answer>", None),
    ("<answer>26<answer>18</answer></answer>", None),
    ("<answer>26</answer><answer>18", None),
    ("<answer>1", None),
    ("<answer></answer>", None),
    # Never inside the chain.
    ("<think><answer>18</answer></think>", None),
    (r"<think>\boxed{18}</think>", None),
    ("<think>the answer is 18", None),
    ("<think>18</think>", None),
    ("<think>18</think><answer>26</answer>", "26"),
    ("<think>18</think>26<think>18</think>", None),
    ("18</think>26", "26"),
    # Plain text.
    ("16 - 3 - 4 = 9\n9 * 2 = 18\nA: 18", "18"),
    ("9 * 2 = 18\n#### 18", "18"),
    ("#### 26\n#### 1,800", "1,800"),
    ("**Answer:** 18 dollars", "18 dollars"),
    ("Final answer: $x = 3$", "x = 3"),
    ("She earns 18. The answer is 3.5. Done at 7.", "3.5"),
    ("Therefore, the final answer is: $18", "$18"),
    (r"\boxed{26}, no: $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
    (r"The answer is 26. \boxed{18}", "18"),
    ("It was 26 at first, so 1,234.50 in the end!", "1,234.50"),
    ("half of it, -3/4", "-3/4"),
    ("A: $-5%", "$-5%"),
    ("no number", None),
    ("", None),
]


@pytest.mark.parametrize("text, answer", CASES)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


def test_last_boxed_wants_balanced_braces():
    assert last_boxed(r"\boxed{1} \boxed{2") == "1"
    assert last_boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert last_boxed(r"\boxed{\boxed{1}}") == r"\boxed{1}"
    assert last_boxed(r"}} \boxed {\frac{1}{2}} {") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed 5") is None


@pytest.mark.parametrize(
    "piece",
    [
        *("<answer>", "</answer>", "<think>", "</think>", r"\boxed{", "{", "}", r"\[", "**"),
        *("####", "answer is ", "answer: ", "answer", "A: ", "A:*", " ", "\t", "\n", "*", "1"),
        *("1,", "-", "$", "/"),
    ],
)
def test_any_long_text_takes_linear_time(piece):
    text = piece * (200_000 // len(piece))
    start = time.monotonic()
    extract_answer(text)
    extract_answer("answer is " + text + "\n5")
    extract_answer(f"<answer>{text}</answer>")
    assert time.monotonic() - start < 1.5  # quadratic time would be minutes
