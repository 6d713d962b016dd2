"""Unit tests, and the comparison of what a program answered with what was expected.

Nothing here reaches the program. Its process is handed a test's input alone. What comes back is
text, compared as text with the encoding of the expected value made on this side: so no `__eq__`,
no patched module and no forged verdict takes part, and a test passes only if the right value was
written for it. A program's values are built here only to be shown, and only short ones; all else
that is done with its text takes time in proportion to its length, which is limited.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning.code_runner.results import ProgramResult, TestResult
from reasoning.code_runner.sandbox import harness

LOADED = harness.encode(None)  # the first answer of a program that has loaded

_SHOWN = 80  # characters of a value in a reason
_LONGEST_READ = 10_000  # characters of an answer whose value is built on this side


@dataclasses.dataclass(frozen=True)
class CallTest:
    """`call`, an expression in the program's names such as "add(2, 3)", must give `expected`.

    That is plain data: None, bool, int, float, str, list, tuple, set, frozenset or dict. Type
    counts: 1, 1.0 and True differ, as do [1, 2] and (1, 2). Subclasses count as their base: a
    Counter is a dict.
    """

    call: str
    expected: Any


@dataclasses.dataclass(frozen=True)
class ExpressionTest:
    """The source, itself one expression such as "a * b + 3", must give `expected`, as in CallTest.

    Variables are numbers, strings, bools or None.
    """

    variables: Mapping[str, Any]
    expected: Any


@dataclasses.dataclass(frozen=True)
class StdinTest:
    """The program, given `stdin`, must end well and print `stdout`.

    Blanks at the end of a line and of the text do not count.
    """

    stdin: str
    stdout: str


UnitTest = CallTest | ExpressionTest | StdinTest

_RECORD_FIELDS = {
    ("call", "expected"): CallTest,
    ("expected", "variables"): ExpressionTest,
    ("stdin", "stdout"): StdinTest,
}


def parse_unit_test(record: Mapping[str, Any]) -> UnitTest:
    """A unit test from its JSON record, which has the fields of one of the three kinds.

    Raises ValueError for a record with other fields.
    """
    kind = _RECORD_FIELDS.get(tuple(sorted(record)))
    if kind is None:
        raise ValueError(
            f"unit test with fields {sorted(record)}: give call and expected, variables and"
            " expected, or stdin and stdout."
        )
    return kind(**record)


def check_unit_tests(tests: Sequence[UnitTest]) -> type:
    """Returns the one kind of test in `tests`.

    Raises ValueError if there are no tests, if kinds mix, or if a value is not plain data.
    """
    kinds = {type(test) for test in tests}
    if not kinds:
        raise ValueError(
            "no unit tests: a program that is not tested cannot pass. Give at least one."
        )
    if len(kinds) > 1 or not kinds <= set(_RECORD_FIELDS.values()):
        names = sorted(kind.__name__ for kind in kinds)
        raise ValueError(
            f"unit tests of kinds {names}: give CallTest, ExpressionTest or StdinTest, one kind for"
            " a program."
        )
    (kind,) = kinds
    for test in tests:
        if kind is not StdinTest:
            try:
                harness.encode(test.expected)
            except TypeError as error:
                raise ValueError(f"unit test {test}: {error}, so no answer can equal it.") from None
        if kind is ExpressionTest:
            for name, value in test.variables.items():
                if not isinstance(value, (bool, int, float, str, type(None))):
                    raise ValueError(
                        f"variable {name} = {value!r}: give a number, string, bool or None."
                    )
    return kind


def decode(answer: str) -> Any:
    """The value in a line that `harness.encode` made, of at most `_LONGEST_READ` characters.

    Raises ValueError, with what happened instead, for any other text. Safe with hostile text: to
    build a set of colliding numbers takes quadratic time, and so only short lines are read.
    """
    if len(answer) > _LONGEST_READ:
        raise ValueError(f"gave a value of {len(answer)} characters, {answer[:_SHOWN]}...")
    try:
        ((outcome, data),) = json.loads(answer).items()
        value = _rebuild(data) if outcome == "value" else str(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("gave an answer that is not plain data") from None
    if outcome != "value":
        raise ValueError(f"raised {value}")
    return value


def _rebuild(data):
    if not isinstance(data, dict):
        return data
    ((kind, items),) = data.items()
    if kind == "int":
        return int(items, 16)
    if kind == "dict":
        return {_rebuild(key): _rebuild(item) for key, item in items}
    containers = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return containers[kind](_rebuild(item) for item in items)


def describe_stop(result: ProgramResult) -> str:
    """Why a program did not end well, in words."""
    last_line = result.stderr.rstrip().rpartition("\n")[2]
    return {
        "ok": "ended well",
        "error": f"ended with exit code {result.exit_code}"
        + (f" ({_cut(last_line)})" if last_line else ""),
        "timeout": "ran past its time limit",
        "memory": "ran out of memory",
        "output": "wrote more than its limit on output",
        "killed": f"crashed or was killed (exit code {result.exit_code})",
    }[result.status]


def judge_answers(
    tests: Sequence[CallTest | ExpressionTest], result: ProgramResult, answers: Sequence[str]
) -> TestResult:
    """Compares a program's answers with the expected values.

    Args:
      tests: the tests, in the order in which they were asked.
      result: how the run ended.
      answers: lines as `harness.serve` writes them: first for loading, then for each test, as many
        as there were.
    """
    loaded, *values = answers or [None]
    if loaded != LOADED:
        return TestResult(
            0,
            len(tests),
            f"0 of {len(tests)} tests passed; the program did not load: {_explain(loaded, result)}",
        )
    values += [None] * (len(tests) - len(values))
    right = [value == harness.encode(test.expected) for test, value in zip(tests, values)]
    failures = (
        f"{_input(test)} {_explain(value, result)}, expected {_show(test.expected)}"
        for test, value, ok in zip(tests, values, right)
        if not ok
    )
    return _tally(right, failures)


def _input(test):
    if isinstance(test, CallTest):
        return _cut(test.call)
    return _cut(", ".join(f"{name} = {value!r}" for name, value in test.variables.items()))


def _explain(answer, result):
    if answer is None:
        return "no answer: it " + describe_stop(result)
    try:
        return f"gave {_show(decode(answer))}"
    except ValueError as error:
        return _cut(str(error))


def _show(value):
    try:
        return _cut(repr(value))
    except ValueError:  # a number of more digits than Python writes
        return _cut(hex(value) if isinstance(value, int) else harness.encode(value))


def judge_output(test: StdinTest, result: ProgramResult) -> str | None:
    """None if the run passes the test, else in words what is wrong."""
    if result.status != "ok":
        return f"it {describe_stop(result)}"
    if _lines(result.stdout) != _lines(test.stdout):
        printed, expected = repr(result.stdout[:_SHOWN]), repr(test.stdout[:_SHOWN])
        return f"it printed {printed}, expected {expected}"
    return None


def judge_outputs(failures: Sequence[str | None]) -> TestResult:
    """Sums up `judge_output` over a program's tests."""
    return _tally([failure is None for failure in failures], (f for f in failures if f is not None))


def _lines(text):
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _tally(right, failures):
    reason = f"{sum(right)} of {len(right)} tests passed"
    failure = next(failures, None)
    if failure is not None:
        reason += f"; test {right.index(False) + 1}: {failure}"
    return TestResult(sum(right), len(right), reason)


def _cut(text):
    text = text.replace("\n", " ")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
