"""Tests a hundred hostile answers: each gets a verdict in time, none is executed, none is rewarded.

Each is a whole response to a problem, judged as the accuracy and format rewards judge it: by
`parse_response`, `extract_answer` and `verify_math`. The `canary` of a payload is a file that it
would write.
"""

import pathlib
import re
import subprocess
import sys
import time

import pytest

from reasoning.mathematics import options
from reasoning.mathematics.answers import extract_answer
from reasoning.mathematics.verifier import verify_math, verify_math_all
from reasoning.response import parse_response

# Processor seconds in this process, and seconds of the clock on a machine that has other work too.
LIMIT_S, WALL_LIMIT_S = 2.0, 20.0
MEGABYTE = 1_000_000


def tagged(answer, chain="thinking"):
    return f"<think>{chain}</think> <answer>{answer}</answer>"


# Reference, and the answer block of a well-formed response.
ANSWERS = [
    # Towers of powers and other numbers that nobody can write out
    ("18", "9**9**9**9"), ("18", "9^{9^{9^{9}}}"), ("18", "9^9^9^9^9"), ("x", r"x^{9^{9^{9^9}}}"),
    ("18", r"18 + 0 \cdot 9^{9^{9^{9}}}"), ("x+1", r"x + 1^{9^{9^{9}}} + 9^{9^{9^9}}"),
    ("18", r"\frac{9^{9^{9^9}}}{9^{9^{9^9}}} \cdot 17"), ("18", "1e999999999"),
    ("18", "1e-999999999"),
    ("18", "18e999999999999999999"), ("18", r"10^{10^{10^{10}}}"), ("18", r"18^{-10^{10^{10}}}"),
    ("0", r"e^{-10^{10^{10}}}"), (r"\sqrt{2}", r"\sqrt[10^{10^{10}}]{2}"),
    ("2", r"2^{0.1^{99999999}} + 1"),
    (r"\pi", r"\pi + 10^{-10^{10^{10}}}"), ("18", "9" * 1900), ("18", "18." + "0" * 1900 + "1"),
    ("18", "0" * 1900), ("x", "x" + "^x" * 400), ("18", "(" * 900 + "17" + ")" * 900),
    # Factorials and friends
    ("18", "99999999999!"), ("18", "(10^{10^{10}})!"), ("18", "3!!!!!!!!"), ("18", "9!!!!"),
    ("18", "((((9!)!)!)!)!"), ("18", r"\binom{10^{100}}{10^{50}}"),
    ("18", r"\binom{99999999}{49999999}"),
    ("18", r"\Gamma(10^{20})"), ("18", r"\sum_{n=1}^{10^{20}} \frac{1}{n^n}"),
    ("18", r"\prod_{n=1}^{10^{12}} n"), ("18", r"\int_0^1 x^{x^{x^{x}}} dx"),
    ("18", r"\gcd(9^{9^{9}}, 18)"),
    ("18", r"\int e^{x^2} \sin(x^x) \log(\cos x) dx"), ("18", r"\lim_{x \to 0} x^{x^{x^{-x}}}"),
    (r"\sqrt{2}", r"\sin(\cos(\tan(\sin(\cos(\tan(10^{10^{10}}))))))"),
    ("x", r"\sqrt{\sqrt{\sqrt{\sqrt{x^{16}+1}}}} + (x+1)^{100}(x-1)^{100}(x+2)^{100}"),
    ("x", "(" + "+".join(f"x_{{{i}}}" for i in range(40)) + ")^{40}"),
    ("x", r"\begin{pmatrix} " + r" \\ ".join(["x & " * 9 + "x"] * 10) + r" \end{pmatrix}^{9999}"),
    ("18", r"\operatorname{eye}(99999)"), ("18", r"\operatorname{zeros}(99999,99999)"),
    ("x", r"\det \begin{pmatrix} " + r" \\ ".join(["x^2+1 & " * 9 + "y"] * 10) + r" \end{pmatrix}"),
    # Code injection into SymPy and Python
    ("18", "__import__('os').system('touch canary')"), ("18", "open('canary', 'w').close() or 18"),
    ("18", "(lambda: open('canary', 'w'))() and 18"), ("18", "exec(\"open('canary','w')\")"),
    ("18", "eval('18')"), ("18", "[open('canary', 'w') for _ in [1]][0] and 18"),
    ("x", "x.__class__.__mro__[1].__subclasses__()"),
    ("x", "x.func.__globals__['open']('canary','w')"),
    ("x", "Symbol('x') if open('canary', 'w') else 0"), ("18", "sympify(\"open('canary','w')\")"),
    ("18", "S(\"__import__('os').system('touch canary')\")"), ("18", "os.system('touch canary')"),
    ("18", "import os; os.system('touch canary')"),
    ("18", r"\text{__import__('os').system('touch canary')}"),
    ("x", r"\operatorname{eval}(open('canary','w'))"),
    ("x", r"\mathrm{exec}{(open('canary','w'))}"),
    ("18", "{{18.__class__}}"), ("18", "${18}; touch canary"), ("18", "`touch canary`"),
    ("18", "$(touch canary)"),
    ("18", "18 if True else open('canary','w')"), ("18", "f\"{open('canary','w')}\""),
    ("18", "18; drop table"),
    ("18", r"\input{/etc/passwd}"), ("18", r"\immediate\write18{touch canary}"),
    ("x", "Function('open')('canary', 'w')"), ("x", "lambdify(x, \"open('canary','w')\")(1)"),
    ("18", "raise SystemExit"), ("18", "exit()"), ("18", "\x00\x0018\x00 19"), ("18", "%s%s%n18x"),
    # Unbalanced and malformed LaTeX
    ("18", r"\frac{18}{"), ("18", r"\frac{{{{18}"), ("18", r"\boxed{18"), ("18", "18}"),
    ("18", "{18"), ("18", "((18"),
    ("18", r"\left( 18"), ("18", r"\sqrt{18"), ("18", r"\begin{pmatrix} 18"),
    ("18", r"\end{pmatrix} 18"),
    ("18", r"\\\\\\18\\\\\\ 9"), ("18", "18^"), ("18", "18_"), ("18", "^18"),
    ("18", r"\frac{}{} 18"), ("18", "18 & 18 & 18"),
    ("18", r"\{" * 500), ("18", r"\frac" * 300), ("18", r"\sqrt" * 300 + "{18}"),
    ("18", r"\text{" * 300 + "18" + "}" * 300),
    ("x", "{" * 900 + "x" + "}" * 900 + "y"), ("18", "$" * 999), ("18", "|" * 999),
    ("18", "-" * 999 + "18"),
    # Two answers, or something beside the answer
    ("18", "18 or 26"), ("18", "18 26"), ("18", "18, 26"), ("18", "18; 26"), ("18", "26 (18)"),
    ("18", "18/26"),
    ("18", "18 = 26"), ("18", "x = 18 or x = 26"), ("18", "not 18"), ("18", "18?? 26??"),
    ("18", "18\n26"),
    ("18", r"\boxed{18}\boxed{26}"), ("18", r"\boxed{18} \boxed{18} \boxed{26}"),
    ("18", r"\{18, 26\}"),
    ("18", "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"), ("18", r"18 \pm 8"), ("18", "x"),
    ("18", "any number"),
    ("18", "the correct answer"), ("18", "the reference answer is the same as this answer"),
    ("18", "18 \\neq 18"),
    ("18", "[0, 100]"), ("18", r"(-\infty, \infty)"), ("18", r"x \in \mathbb{R}"), ("18", "nan"),
    ("18", "inf"),
    ("(1,2)", r"\mathbb{R}"), (r"(2,\infty)", r"(-\infty,\infty)"), ("x", "*"), ("x^2", ".*"),
    ("x^2", "x^2 or x^3"),
    (r"\text{(C)}", "(A) (B) (C) (D)"), (r"\text{(C)}", "C or D"), (r"\text{yes}", "yes and no"),
    ("y=2x+3", "0=0"),
    # Not worked out
    ("18", "9*2"), ("18", "(16-3-4)*2"), ("18", r"\frac{36}{1+1}"), ("18", "3*3+3*3"),
    # Unicode
    ("18", "٢٦"), ("18", "¹⁸"), ("18", "₁₈"), ("52", "5²"), ("18", "①⑧ ②⑥"),
    ("18", "1\u202e8 62"), ("18", "Ⅹ Ⅷ"),
    ("18", "一八 二六"), ("-18", "18\u0336"), ("18", "\ud83d\ude00"), ("18", "１９"), ("12", "1½"),
    # Megabytes
    ("18", "18" * (MEGABYTE // 2)), ("18", " " * MEGABYTE), ("18", "(" * MEGABYTE),
    ("18", r"\frac{" * (MEGABYTE // 6)),
    ("18", "18 " * (MEGABYTE // 3)), ("18", r"\boxed{" * (MEGABYTE // 7)),
    ("18", "9" * MEGABYTE + "!"),
    ("18", "answer is " * (MEGABYTE // 10) + "26"), ("18", "x+" * (MEGABYTE // 2) + "x"),
]  # fmt: skip

# Whole responses to a problem whose answer is 18.
RESPONSES = [
    "<think>18 <answer>18</answer> 18</think>",
    "<think><answer>18</answer></think><answer>26</answer>",
    r"<think>\boxed{18}</think><answer></answer>",
    "<think>18</think>",
    "<think>18",
    "<think>the answer is 18 <answer>18</answer>",
    "<answer>18</answer><answer>26</answer>",
    "<think></think><answer>26</answer><answer>18</answer>",
    "<answer>26<answer>18</answer></answer>",
    "<answer><answer>18</answer>26</answer>",
    "<think><think>x</think><answer>18</answer></think><answer>26</answer>",
    "<think>x</think><answer>26</answer><think><answer>18</answer></think>",
    "<answer>18</think></answer>",
    "</answer>18<answer>",
    "<think>x</think><answer>26</answer> Or rather <answer>18",
    "<answer>" * (MEGABYTE // 8) + "18",
    "<think>" * (MEGABYTE // 7) + "<answer>18</answer>",
    "<answer>17</answer>" * (MEGABYTE // 19) + "<answer>18</answer>",
    "The answer is 18. The answer is 26.",
    r"\boxed{18} \boxed{26}",
    r"#### 18" + "\n" + "#### 26",
]


@pytest.fixture(scope="module", autouse=True)
def workers():
    verify_math("x+1", "1+x")  # started once; their start is not part of a verdict


def _short(value):
    return repr(value)[:60]


def test_there_are_a_hundred():
    assert len(ANSWERS) + len(RESPONSES) >= 100


@pytest.mark.parametrize("reference, answer", ANSWERS, ids=_short)
def test_hostile_answers_earn_nothing_in_time(reference, answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    response = tagged(answer.replace("canary", str(canary)))
    start, began = time.process_time(), time.monotonic()
    parsed = parse_response(response)
    verdicts = [verify_math(reference, a) for a in {parsed.answer, extract_answer(response)} if a]
    assert time.process_time() - start < LIMIT_S
    assert time.monotonic() - began < WALL_LIMIT_S
    assert not any(verdict.correct for verdict in verdicts), verdicts
    assert all(verdict.reason for verdict in verdicts)
    assert not canary.exists()


@pytest.mark.parametrize("response", RESPONSES, ids=_short)
def test_hostile_responses_earn_nothing_in_time(response):
    start = time.process_time()
    parsed = parse_response(response)
    answer = extract_answer(response)
    earned = answer is not None and verify_math("18", answer).correct
    assert time.process_time() - start < LIMIT_S
    assert not earned
    # What counts inside a valid format only, counts even less.
    assert not (parsed.well_formed and verify_math("18", parsed.answer or "").correct)


def test_the_canary_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    eval("__import__('os').system('touch canary')")
    assert (tmp_path / "canary").exists()


def test_good_answers_among_endless_ones_are_still_right():
    endless = [("18", r"\int e^{x^2} \sin(x^x) \log(\cos x) dx"), ("18", r"\Gamma(10^{20})")]
    pairs = [pair for bad in endless * 2 for pair in (bad, ("(x+1)^2", "x^2+2x+1"))]
    assert [v.correct for v in verify_math_all(pairs)] == [False, True] * 4


def test_the_grader_imports_nothing_that_evaluates_text():
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import reasoning.mathematics.verifier, reasoning.mathematics.symbolic\n"
        "print(*{'math_verify', 'latex2sympy2_extended', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not done.stdout.strip()
    sources = [path.read_text() for path in pathlib.Path(options.__file__).parent.glob("*.py")]
    assert sources and not any(
        re.search(r"\b(?:eval|exec|__import__|sympify)\(", s) for s in sources
    )
