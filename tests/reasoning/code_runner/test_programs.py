"""Tests which code blocks of a response are taken as the program."""

import time

import pytest

from reasoning.code_runner.programs import MAX_CHARS, find_program

ADD = "def add(a, b):\n    return a + b"
OTHER = "def add(a, b):\n    return 0"
PYTHON = f"```python\n{ADD}\n```"


@pytest.mark.parametrize(
    "text",
    [
        ADD,
        f"\n\n{ADD}\n\n",
        PYTHON,
        f"Here it is:\n{PYTHON}\nIt adds.",
        f"```\n{ADD}\n```",
        f"```py\n{ADD}\n```",
        f"```Python 3\n{ADD}\n```",
        f"```{{.python}}\n{ADD}\n```",
        f"~~~python\n{ADD}\n~~~",
        f"~~~\n{ADD}\n~~~~",
        f"````python\n{ADD}\n````",
        f"```python\n{ADD}\n`````",
        f"```python\n{ADD}\n```   ",
        f"``` python\n{ADD}\n```",
        PYTHON.replace("\n", "\r\n"),
        PYTHON.replace("\n", "\r"),
        # Indented: the fence, its content, both, all without a fence, or below prose.
        "\n".join("   " + line for line in PYTHON.split("\n")),
        "1. So:\n\n" + "\n".join("      " + line for line in PYTHON.split("\n")),
        "\n".join("\t" + line for line in PYTHON.split("\n")),
        "```python\n" + "\n".join("    " + line for line in ADD.split("\n")) + "\n```",
        "\n".join("    " + line for line in ADD.split("\n")),
        "The function\n\n" + "\n".join("    " + line for line in ADD.split("\n")) + "\n\nadds.",
        # Followed by what it prints, or by how it is called from a shell.
        f"{PYTHON}\nOutput:\n```\n5\n```",
        f"{PYTHON}\n```output\nadd = 5\n```",
        f"{PYTHON}\n```text\n5\n```",
        f"{PYTHON}\nRun it:\n```bash\npython add.py\n```",
        f"{PYTHON}\n```sh\nX=1 python add.py\n```",
        f"{PYTHON}\n```console\n$ python add.py\n```\n```json\n{{}}\n```",
        f"```\n{ADD}\n```\nwhich prints\n```\n5\n```",
        f"```\n{ADD}\n```\n**Output:**\n```\nadd = 5\n```",
        f"```bash\npip install numpy\n```\n{PYTHON}",
        # The last of several tries.
        f"```python\n{OTHER}\n```\nBetter:\n{PYTHON}",
        f"```\n{OTHER}\n```\n```\n{ADD}\n```",
        f"```python\nx = 0\n{OTHER}\n```\nBetter:\n{PYTHON}",
        # Cut off behind the program.
        f"{PYTHON}\n```python\nprint(",
        # A shorter fence inside does not close.
        f"````python\n{ADD}\n````\n",
    ],
)
def test_the_program_is_found(text):
    assert find_program(text) == ADD
    assert find_program(text, ["add(2, 3)"]) == ADD


@pytest.mark.parametrize(
    "first, second",
    [
        ("import math", "def root(x):\n    return math.isqrt(x)"),
        ("from math import isqrt as r", "def root(x):\n    return r(x)"),
        ("def half(x):\n    return x / 2", "def quarter(x):\n    return half(half(x))"),
        ("class Node:\n    pass", "def make(x: int) -> Node:\n    return Node()"),
        ("class Node:\n    pass", "def make(x: Node):\n    return x"),
        ("LIMIT = 5", "def f(x):\n    return x < LIMIT"),
        ("LIMIT: int = 5", "print(LIMIT)"),
        ("n = int(input())", "print(n * 2)"),
        ("a, b = map(int, input().split())", "print(a + b)"),
    ],
)
def test_a_split_program_is_joined(first, second):
    for mark in ("python", ""):
        text = f"First:\n```{mark}\n{first}\n```\nThen:\n```{mark}\n{second}\n```"
        assert find_program(text) == f"{first}\n\n{second}"


def test_blocks_are_joined_where_the_tests_call_what_the_last_does_not_define():
    text = f"{PYTHON}\nand\n```python\ndef sub(a, b):\n    return a - b\n```"
    assert find_program(text, ["add(1, 2)", "sub(1, 2)"]).startswith(ADD)
    assert "add" not in find_program(text, ["sub(1, 2)"])
    usage = f"{PYTHON}\nFor example:\n```python\nprint(add(2, 3))\n```"
    assert find_program(usage) == f"{ADD}\n\nprint(add(2, 3))"


def test_a_second_try_replaces_the_first():
    first = "n = int(input())\nfor i in range(n):\n    print(i)"
    second = "import sys\nn = int(sys.stdin.readline())\nprint(n)"
    assert find_program(f"```python\n{first}\n```\nNo:\n```python\n{second}\n```") == second
    # The last try counts, though an earlier one be right.
    assert find_program(f"{PYTHON}\nor\n```python\n{OTHER}\n```", ["add(1, 2)"]) == OTHER


def test_an_inner_fence_stays():
    code = 'text = """\n```\nx\n```\n"""\nprint(text)'
    assert find_program(f"````python\n{code}\n````") == code


@pytest.mark.parametrize(
    "text, program",
    [
        ("x = 1", "x = 1"),
        ("a * b + 3", "a * b + 3"),
        ('"""Adds."""\n\ndef f():\n    return 1\n\n    # done', None),
        ("```python\nx = 1", ""),  # never closed
        ("~~~\nx = 1\n```", ""),
        ("", ""),
        ("x" * (MAX_CHARS + 1), ""),
    ],
)
def test_odd_texts(text, program):
    assert find_program(text) == (text if program is None else program)


@pytest.mark.parametrize(
    "text",
    [
        "```x\n" * 100_000,
        "```\n" * 100_000,
        "~~~\n```\n" * 50_000,
        "`" * 500_000,
        "```python\nx = 1\n```\n" * 20_000,
        "```python\n" + "def f(" * 80_000 + "\n```",
        "```python\n" + "a " * 200_000 + "\n```",
        "```python\nimport " + " " * 400_000 + "\n```",
        "```python\nfrom " + " " * 400_000 + "\n```",
        "```\nif " + ") " * 200_000 + "!\n```",
        "a" * 500_000 + "!",
        " " * 500_000 + "x",
        "\n    x" * 80_000,
        "lambda " * 70_000,
        "```python\n" + "lambda " * 70_000 + "\n```",
        "```python\n" + "x = " * 100_000 + "\n```",
        "```python\n" + "def " * 100_000 + "\n```",
        "import a" * 60_000,
    ],
    ids=range(18),
)
def test_time_is_linear(text):
    start = time.process_time()
    find_program(text)
    assert time.process_time() - start < 1
