"""Tests the math verifier against tables of what mathematicians call equal and not equal."""

import json
import os
import pathlib
import threading
import time

import pytest

from reasoning.mathematics.reading.quantity import parse_quantity
from reasoning.mathematics.reading.text import canonical
from reasoning.mathematics.verifier import verify_math, verify_math_all

# Reference, answer.
EQUAL = [
    # Numbers, their spellings and signs
    ("18", "18.0"), ("18", "18."), ("18", "+18"), ("18", r"\boxed{18}"), ("18", "**18**"),
    ("18", "$18$"), ("18", r"\(18\)"), ("18", r"\[ 18 \]"), ("18", "(18)"), ("18", "18/1"),
    ("1000", "1,000"), ("1000", "1 000"), ("58,500", "58500"), (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"), ("1000", "1{,}000"),
    ("18", "１８"), ("42", "٤٢"), ("-5", "−5"), ("18", "1\u200b8"), ("1.5", "1½"),
    ("0.5", "1/2"), ("0.5", ".5"), (r"\frac{1}{2}", "0.5"), (r"\frac43", "4/3"),
    (r"\frac 59", r"\dfrac{5}{9}"), (r"\frac9{19}", "9/19"), (r"-\frac{3}{8}", r"\frac{-3}{8}"),
    (r"1\frac{4}{5}", "9/5"), (r"1\frac{4}{5}", "1.8"), (r"\frac{14}{3}", r"4\frac{2}{3}"),
    (r"137 \frac{1}{2}", "137.5"), ("9/5", "1 4/5"), ("1/3", "0.333333"), ("2/3", "0.666667"),
    (".0000672", r"6.72 \times 10^{-5}"), ("100000", "1e5"), ("1200", "1.2*10^3"), ("3:4", "3/4"),
    # Percent, money, units
    ("50", "50%"), ("0.5", "50%"), (r"50\%", "0.5"), (r"50\%", "50"), ("50", "50 percent"),
    ("18", "$18"), ("18", r"\$18.00"), ("18", "18 dollars"), ("18", "$18$ dollars"),
    (r"\$36", "36"), (r"\$36", "36 dollars"), ("18", "18 dollars per day"), ("18", r"$\$18$"),
    (r"90^\circ", "90"), (r"90^\circ", "90 degrees"), (r"90^\circ", "90°"), ("90", r"90^{\circ}"),
    (r"\frac{270}7\text{ degrees}", "270/7"), ("5", "5 apples"), ("5", r"\text{5 apples}"),
    (r"864 \mbox{ inches}^2", "864 square inches"), (r"15\mbox{ cm}^2", "15"), ("12", "12 m"),
    (r"5.4 \text{ cents}", "5.4 cents"), (r"8\pi", r"8 \pi \text{ cm}"),
    ("52_8", "52"), ("52_8", "52_{8}"), ("52_8", "52₈"),
    # Names and chains of equations
    ("x=5", "5"), ("5", "x=5"), ("18", "Profit = $18"), ("18", "9*2=18"), ("18", r"f(2) = 18"),
    ("y=2x+3", "2x+3"), ("y=2x+3", "y=3+2x"), ("y = -2x", "2x + y = 0"),
    ("5x-7y+11z+4=0", "-5x+7y-11z-4=0"),
    # Expressions
    ("x^2+2x+1", "(x+1)^2"), ("p-q", "-q+p"), ("2k+2", "2(k+1)"), ("(a+5)(b+2)", "ab+2a+5b+10"),
    ("x^{10}", "x^10"), ("x^{10}", "x**10"), (r"\frac{11+9a}{20}", "(9a+11)/20"),
    ("1024", "2^{10}"),
    (r"\sqrt{2}", "2^{1/2}"), (r"\sqrt{18}", r"\sqrt{2(9)}"), (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"3\sqrt{13}", "3*sqrt(13)"),
    (r"3\sqrt{13}", "10.816654"), (r"11\sqrt2", "11 √2"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\frac{\pi}{2}", "π/2"), (r"\frac{\pi}{2}", "pi/2"), (r"\frac{\pi}{2}", r"0.5\pi"),
    (r"\frac{\pi}{2}", r"\frac{\pi}{2} \approx 1.57"), (r"12\pi", "37.699112"),
    ("288\\pi", "288 pi"),
    (r"\cot x", r"1/\tan x"), (r"\cot x", r"\frac{\cos x}{\sin x}"), ("e^x", r"\exp(x)"),
    ("2^{2006}-1", "-1+2^{2006}"), (r"\binom{20}{10}", "184756"), ("100!", r"99! \cdot 100"),
    ("6-5i", "-5i+6"), ("2i", "(1+i)^2"), ("3R^2", "3 R^2"), ("x^2", "x²"), ("25", "5²"),
    # Lists, sets, tuples, intervals, matrices
    ("3,5,7", "7, 5, 3"), ("1,-2", "-2 and 1"), ("-2,1", "x=1, x=-2"),
    ("100, 200, 300", "100,200,300"),
    (r"\{1,2\}", "{2,1}"), (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    (r"\{1\pm\sqrt{5},-2\}", r"-2, 1-\sqrt5, 1+\sqrt5"), (r"\emptyset", "∅"),
    (r"\left( 3, \frac{\pi}{2} \right)", "(3, pi/2)"), ("(6,31,-1)", "6, 31, -1"),
    ("(1,2),(3,4)", "(3,4), (1,2)"), ("(3,4]", "(3, 4]"), (r"x \in [-2,7]", "[-2,7]"),
    (r"x \in [-2,7]", r"-2 \le x \le 7"), (r"(2,\infty)", "x>2"), (r"(2,\infty)", "(2, infinity)"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"), (r"(0,9) \cup (9,36)",
    "(0,9)∪(9,36)"),
    (r"\begin{pmatrix} -7 \\ 16 \\ 5 \end{pmatrix}", r"\begin{pmatrix}-7\\16\\5\end{pmatrix}"),
    (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\begin{bmatrix} 0.2 \\ -3.6 \end{bmatrix}"),
    # Words
    (r"\text{Evelyn}", "Evelyn"), (r"\text{(C)}", "C"), ("C", "(c)"), (r"\text{even}", "Even"),
    (r"\text{east}", "East."), ("New York", r"\text{new york}"), ("白色", "白色。"),
]  # fmt: skip

DIFFERENT = [
    ("18", "26"), ("18", "180"), ("18", "-18"), ("18", ""), ("18", "  "), ("18", "18.5"),
    ("18", "1,8"),
    ("18000", "18,00"), ("18", "١٩"), ("1/3", "0.33"), ("1/3", "0.333334"), ("0.5", "0.500001"),
    ("0.0000672", "0.0000674"), ("18", r"\pm 18"), ("18", "18!"), ("52", "5²"),
    ("18", "0x12"), ("18", "nan"), ("18", r"\infty"), ("18", "1/0"), (r"\infty", "1/0"),
    # Two answers, or none
    ("18", "18 or 26"), ("18", "18, 26"), ("18", "18 26"), ("18", "18; 26"), ("18", "26=18"),
    ("18", "18=26"), ("18", "x=26=18"), ("18", r"18 \approx 26"), ("18", r"18 \neq 26"),
    ("18", "<18"),
    ("18", r"18\text{ or }26"), ("18", "18 not"), ("18", "not 18"),
    ("18", r"\boxed{18} \boxed{26}"),
    ("18", "18 8"), ("18", "18/26/1"), ("18", "18-26"), ("18", "18..26"), ("18", "17-19"),
    ("18", "x"), ("18", "x>17"), ("18", "{18"), ("18", r"\frac{18}"), ("1", "x/x + y"),
    ("1,-2", "1"), ("1", "1,-2"), ("3, 5, 7", "3, 5"), ("3, 5, 7", "3, 5, 7, 9"),
    ("3, 5, 7", "3, 3, 5"),
    (r"\text{Evelyn}", "Evelyn or Briana"), (r"\text{(C)}", "C D"), (r"\text{(C)}", "(A)(B)(C)(D)"),
    # Not worked out: the verifier must not do the arithmetic
    ("18", "9*2"), ("18", "16+2"), ("18", r"9 \times 2"), ("5", r"\frac{4+6}{2}"), ("18", "(9)(2)"),
    # What the parser beneath would add up, or drop
    (r"\sqrt{11}", r"\sqrt{2(9)}"), (r"\sqrt{52}", r"\sqrt{52_8}"), ("36", "18 18"),
    ("11", "2(9)"), ("7", "3{4}"), ("1+x", "1x"), ("52_8", "52_7"),
    ("52_8", "42_{10}"),
    ("18", "18_8"), ("18", "18 million"), ("18", "18 hundred"), ("5", "5 dozen"),
    ("5", "5 squared"),
    ("2", "2k"), ("2", "2x"), ("6", "6xyz"), ("6", "6ab"), ("8", "8 minus 3"), ("50", "0.5"),
    # Units and names that differ
    (r"5.4\text{ cents}", "5.4 dollars"), (r"15\mbox{ cm}^2", "15 cm"), (r"15\mbox{ cm}^2",
    "15 m^2"),
    ("x=5", "y=5"), ("x=5", "x=6"), (r"8\pi\text{ cm}", r"8\pi\text{ m}"),
    # Expressions
    ("x^2", "x^3"), ("x", "2x"), ("6-5i", "6+5i"), ("x^2-1", "(x-1)(x-1)"), (r"\pi", "3.14"),
    (r"\pi", "22/7"), (r"\pi", "3.141593e5"), (r"3\sqrt{13}", "10.8"), (r"3\sqrt{13}", "10.816655"),
    ("y=2x+3", "y=2x+4"), ("y=2x+3", "0=0"), ("y=2x+3", "y=y"), ("y=2x+3", "y=2x+3, y=5"),
    ("5x-7y+11z+4=0", "0=0"), ("5x-7y+11z+4=0", "5x-7y+11z+5=0"),
    # Brackets and order
    ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(3,4]", "(3,4)"), ("(1,2)", r"\{1,2\}"),
    ("(3,4]", "x"),
    ("(1,2),(3,4)", "(1,3),(2,4)"), (r"\{1,2\}", r"\{1,2,3\}"), (r"(2,\infty)", r"x\ge 2"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2]\cup(3,\infty)"), ("5", "∅"), (r"\emptyset", "0"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    # Words are not products of letters
    (r"\text{even}", "neve"), (r"\text{(C)}", "(D)"), ("18", "eighteen"), (r"\text{Evelyn}", "18"),
    ("白色", "黑色"),
]  # fmt: skip


@pytest.fixture(scope="module")
def verdicts():
    pairs = EQUAL + DIFFERENT
    return dict(zip(pairs, verify_math_all(pairs)))


@pytest.mark.parametrize("pair", EQUAL, ids=" == ".join)
def test_equal(verdicts, pair):
    assert verdicts[pair].correct, verdicts[pair].reason


@pytest.mark.parametrize("pair", DIFFERENT, ids=" != ".join)
def test_different(verdicts, pair):
    assert not verdicts[pair].correct, verdicts[pair].reason
    assert verdicts[pair].reason


def test_every_reference_equals_itself_through_the_symbolic_path_too():
    # A blank inside keeps the texts apart, so that equality is not by text alone.
    references = sorted({reference for pair in EQUAL for reference in pair if reference.isascii()})
    pairs = [(r, rf"\[ {r} \]") for r in references]
    wrong = [pair for pair, verdict in zip(pairs, verify_math_all(pairs)) if not verdict.correct]
    assert not wrong


def test_an_empty_reference_is_an_error():
    with pytest.raises(ValueError, match="reference"):
        verify_math(" ", "5")


def test_long_answers_are_wrong_unless_they_are_the_reference():
    long = "1" * 5000
    assert not verify_math("1", long).correct
    assert verify_math(long, long).correct


def test_canonical_is_idempotent():
    for text in {text for pair in EQUAL for text in pair}:
        assert canonical(canonical(text)) == canonical(text)


def test_quantity_keeps_what_stands_next_to_the_number():
    quantity = parse_quantity(canonical(r"-3.50 \text{ cm}^2"))
    assert (float(quantity.value), quantity.decimals, quantity.significant) == (-3.5, 2, 3)
    assert quantity.unit == "cm^2" and not quantity.percent
    assert parse_quantity(canonical("12.5 %")).percent
    assert parse_quantity(canonical("2516_8")).base == "8"
    assert parse_quantity("no number") is None


def test_threads_get_their_own_verdicts():
    pairs = [(f"x+{i}", f"{i + wrong}+x") for i in range(6) for wrong in (0, 1)]
    results = {}

    def run(pair):
        results[pair] = verify_math(*pair).correct

    threads = [threading.Thread(target=run, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {(r, a): int(r[2:]) == int(a.split("+")[0]) for r, a in pairs}


# --- On real data, where it is at hand.

DATA = pathlib.Path(
    os.environ.get("ERGO_DATA", pathlib.Path(__file__).parents[2] / ".." / "shared" / "data")
)


@pytest.fixture(scope="module")
def math500():
    path = DATA / "math500" / "math500_test.json"
    if not path.exists():
        pytest.skip(f"no MATH-500 at {path} (set ERGO_DATA)")
    return [row["answer"] for row in json.loads(path.read_text())]


def test_math500_references_equal_themselves(math500):
    respelled = [r"\[ " + answer.replace(r"\frac", r"\dfrac") + r" \]." for answer in math500]
    verdicts = verify_math_all(list(zip(math500, respelled)))
    assert [a for a, v in zip(math500, verdicts) if not v.correct] == []


def test_math500_references_differ_from_their_neighbours(math500):
    following = math500[1:] + math500[:1]
    pairs = list(zip(math500, following))
    equal = {pair for pair, verdict in zip(pairs, verify_math_all(pairs)) if verdict.correct}
    # The only neighbours that are indeed equal.
    assert equal == {("5", "x=5"), ("7", "7"), ("3", "3")}


def test_numbers_are_graded_in_this_process_and_fast():
    answers = ("18", "$18.00", "26", "x = 18", "18 dollars", "no idea")
    pairs = [("18", answer) for answer in answers] * 500
    start = time.monotonic()
    verdicts = verify_math_all(pairs)
    assert time.monotonic() - start < len(pairs) / 500
    assert sum(verdict.correct for verdict in verdicts) == 4 * 500
