"""The code reward runs the final program, and only that, against tests it cannot see."""

import pytest

from reasoning.problem import Problem
from rl.rewards import Sample
from rl.rewards.code import CodeReward

ADD = Problem(
    "jsonl:mine.jsonl",
    "Write add(a, b).",
    "",
    {"tests": [{"call": "add(2, 3)", "expected": 5}, {"call": "add(-1, 1)", "expected": 0}]},
)
ECHO = Problem("x", "Print the input doubled.", "", {"tests": [{"stdin": "4\n", "stdout": "8"}]})
RIGHT = "def add(a, b):\n    return a + b"
SECOND_ONLY = "def add(a, b):\n    return 0"
PROMPT = "User: q\nAssistant:"


def fenced(program):
    return f"```python\n{program}\n```"


def response(chain, answer):
    return f"<think>{chain}</think><answer>{answer}</answer>"


CASES = [
    (response("easy", fenced(RIGHT)), 1, 1),
    (response("easy", RIGHT), 1, 1),
    (response("easy", fenced(SECOND_ONLY)), 0, 0),
    (fenced(RIGHT), 1, 0),
    # The last block is the program.
    (f"First try:\n{fenced(SECOND_ONLY)}\nBetter:\n{fenced(RIGHT)}", 1, 0),
    (f"{fenced(RIGHT)}\nor\n{fenced(SECOND_ONLY)}", 0, 0),
    # What follows the program, how it is fenced and split, makes no difference.
    (response("easy", f"{fenced(RIGHT)}\nOutput:\n```\n5\n```"), 1, 1),
    (response("easy", f"{fenced(RIGHT)}\n```bash\npython add.py\n```"), 1, 1),
    (response("easy", "\n".join("    " + line for line in fenced(RIGHT).split("\n"))), 1, 1),
    (response("easy", fenced(RIGHT).replace("```", "~~~")), 1, 1),
    (response("easy", fenced(RIGHT).replace("```", "````")), 1, 1),
    (response("easy", fenced(RIGHT).replace("\n", "\r\n")), 1, 1),
    (
        response(
            "easy",
            fenced("def plus(a, b):\n    return a + b")
            + "\nand\n"
            + fenced("def add(a, b):\n    return plus(a, b)"),
        ),
        1,
        1,
    ),
    (response("easy", f"{fenced(RIGHT)}\n{fenced(SECOND_ONLY)}"), 0, 0),
    # A program in the chain is not an answer.
    (response(fenced(RIGHT), ""), 0, 0),
    (f"<think>{fenced(RIGHT)}", 0, 0),
    (f"<think>{fenced(RIGHT)}</think>", 0, 0),
    (f"<think></think><answer>{RIGHT}</answer><answer>{RIGHT}</answer>", 0, 0),
    ("", 0, 0),
]


def test_the_final_program_is_run():
    samples = [Sample(PROMPT, text, ADD, num_tokens=9) for text, _, _ in CASES]
    for require_format, column in ((False, 1), (True, 2)):
        results = CodeReward(require_format=require_format).score_batch(samples)
        assert [r.score for r in results] == [case[column] for case in CASES]
        assert all(r.reason for r in results)


@pytest.mark.parametrize(
    "hostile",
    [
        # A value that equals everything.
        "class Any:\n    def __eq__(self, other): return True\ndef add(a, b): return Any()",
        # Leaving before the tests, with success.
        "import os\nos._exit(0)",
        # Printing verdicts.
        "print('2 of 2 tests passed')\nprint('{\"value\": 5}')\ndef add(a, b): pass",
        # Asking the frames above for what is expected.
        "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n"
        "        for v in f.f_locals.values():\n"
        "            if hasattr(v, 'expected'): return v.expected\n        f = f.f_back",
        "def add(a, b):\n    while True: pass",
        "def add(a, b): return '5'",
        "import builtins\nbuiltins.len = lambda x: 0\ndef add(a, b): raise SystemExit(0)",
    ],
)
def test_hostile_programs_earn_nothing(hostile):
    texts = (response("", fenced(hostile)), fenced(hostile))
    samples = [Sample(PROMPT, text, ADD, num_tokens=9) for text in texts]
    assert [result.score for result in CodeReward().score_batch(samples)] == [0, 0]


def test_partial_credit_and_programs_that_read():
    text = response("", fenced(SECOND_ONLY))
    assert CodeReward(partial=True)(PROMPT, text, ADD).score == 0.5
    assert CodeReward()(PROMPT, fenced("print(2 * int(input()))"), ECHO).score == 1
    assert CodeReward()(PROMPT, fenced("print(8)\nprint(8)"), ECHO).score == 0


def test_a_problem_without_tests_earns_nothing():
    result = CodeReward()(PROMPT, fenced(RIGHT), Problem("gsm8k", "q", "5"))
    assert result.score == 0 and "no unit tests" in result.reason
