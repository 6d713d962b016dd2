"""Defines unit tests, and compares what a program answered with the expected values.

Nothing in this module reaches the program: its process gets only the input of a test. The program
returns text, and this module compares that text with its own encoding of the expected value. So no
`__eq__`, no patched module and no forged verdict can take part, and a test passes only if the
program wrote the right value for it. This module rebuilds a value of the program only to show it,
and only if its text is short. All other work on the program's text takes time in proportion to its
length, which is limited.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning.code_runner.results import ProgramResult, TestResult
from reasoning.code_runner.sandbox import harness

LOADED = harness.encode(None)  # the first answer of a program that loaded without an error

_SHOWN = 80  # the most characters of a value that a reason shows
_LONGEST_READ = 10_000  # the most characters of an answer whose value this process rebuilds


@dataclasses.dataclass(frozen=True)
class CallTest:
    """Requires that `call` gives `expected`; `call` is an expression such as "add(2, 3)".

    The expression uses the names that the program defines. `expected` is plain data: None, bool,
    int, float, str, list, tuple, set, frozenset or dict. Types must agree: 1, 1.0 and True differ,
    as do [1, 2] and (1, 2). A subclass counts as its base: a Counter is a dict.
    """

    call: str
    expected: Any


@dataclasses.dataclass(frozen=True)
class ExpressionTest:
    """Requires that the source, which is one expression such as "a * b + 3", gives `expected`.

    Values are compared as in CallTest. The variables are numbers, strings, bools or None.
    """

    variables: Mapping[str, Any]
    expected: Any


@dataclasses.dataclass(frozen=True)
class StdinTest:
    """Requires that the program, given `stdin`, ends with exit code 0 and prints `stdout`.

    Blanks at the end of a line or of the text do not count.
    """

    stdin: str
    stdout: str


UnitTest = CallTest | ExpressionTest | StdinTest

_RECORD_FIELDS: dict[tuple[str, ...], type[UnitTest]] = {
    ("call", "expected"): CallTest,
    ("expected", "variables"): ExpressionTest,
    ("stdin", "stdout"): StdinTest,
}


def parse_unit_test(record: Mapping[str, Any]) -> UnitTest:
    """Builds a unit test from its JSON record, which has the fields of one of the three kinds.

    Raises:
      ValueError: the record has other fields.
    """
    kind = _RECORD_FIELDS.get(tuple(sorted(record)))
    if kind is None:
        raise ValueError(
            f"a unit test has the fields {sorted(record)}: give call and expected, or variables"
            " and expected, or stdin and stdout."
        )
    return kind(**record)


def check_unit_tests(tests: Sequence[UnitTest]) -> type:
    """Returns the one kind of test that `tests` holds.

    Raises:
      ValueError: there are no tests, kinds are mixed, or a value is not plain data.
    """
    kinds = {type(test) for test in tests}
    if not kinds:
        raise ValueError(
            "there are no unit tests, and a program that is not tested cannot pass: give at least"
            " one."
        )
    if len(kinds) > 1 or not kinds <= set(_RECORD_FIELDS.values()):
        names = sorted(kind.__name__ for kind in kinds)
        raise ValueError(
            f"there are unit tests of the kinds {names}: give CallTest, ExpressionTest or"
            " StdinTest, and only one kind for a program."
        )
    (kind,) = kinds
    for test in tests:
        if kind is not StdinTest:
            try:
                harness.encode(test.expected)
            except TypeError as error:
                raise ValueError(
                    f"unit test {test}: {error}, so no answer can equal it: give plain data."
                ) from None
        if kind is ExpressionTest:
            for name, value in test.variables.items():
                if not isinstance(value, (bool, int, float, str, type(None))):
                    raise ValueError(
                        f"variable {name} = {value!r}: give a number, string, bool or None."
                    )
    return kind


def decode(answer: str) -> Any:
    """Returns the value in a line that `harness.encode` made.

    A line of more than `_LONGEST_READ` characters is refused, because the text is hostile: building
    a set of colliding numbers takes quadratic time.

    Raises:
      ValueError: the line holds no value or is too long; the message says what happened instead.
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
    """Says in words how a program ended, for the end of a sentence about it."""
    last_line = result.stderr.rstrip().rpartition("\n")[2]
    return {
        "ok": "ended without an error",
        "error": f"ended with exit code {result.exit_code}"
        + (f" ({_cut(last_line)})" if last_line else ""),
        "timeout": "ran past its time limit",
        "memory": "ran out of memory",
        "output": "wrote more than its limit on output",
        "killed": f"crashed or was killed (exit code {result.exit_code})",
    }[result.status]


def judge_answers(
    tests: Sequence[UnitTest], result: ProgramResult, answers: Sequence[str]
) -> TestResult:
    """Compares the answers of a program with the expected values.

    Args:
      tests: the CallTests or ExpressionTests, in the order in which the program was asked.
      result: how the run ended.
      answers: the lines that `harness.serve` wrote: one for loading, then one for each test that
        the program answered.
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
        return "got no answer: the program " + describe_stop(result)
    try:
        return f"gave {_show(decode(answer))}"
    except ValueError as error:
        return _cut(str(error))


def _show(value):
    try:
        return _cut(repr(value))
    except ValueError:  # The number has more digits than Python writes.
        return _cut(hex(value) if isinstance(value, int) else harness.encode(value))


def judge_output(test: StdinTest, result: ProgramResult) -> str | None:
    """Returns None if the run passes the test, else a sentence that says what is wrong."""
    if result.status != "ok":
        return f"the program {describe_stop(result)}"
    if _lines(result.stdout) != _lines(test.stdout):
        printed, expected = repr(result.stdout[:_SHOWN]), repr(test.stdout[:_SHOWN])
        return f"the program printed {printed}, expected {expected}"
    return None


def judge_outputs(failures: Sequence[str | None]) -> TestResult:
    """Sums up the results of `judge_output` for all tests of a program."""
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
