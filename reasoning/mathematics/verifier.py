"""Is a mathematical answer correct? Exact rules first, then math-verify in killable workers.

Most answers are decided in this process, by text and exact fractions. What is left (expressions,
sets, intervals, matrices, equations) goes to `reasoning.mathematics.symbolic` in worker processes, under a
hard limit of time and memory. Nothing is evaluated as Python and nothing blocks: an answer such as
9^{9^{9^9}} is wrong after `TIME_LIMIT_S`. Safe to call from any thread.
"""

import functools
import os
import re
import threading
from collections.abc import Sequence

from reasoning.mathematics.text import (
    Quantity,
    canonical,
    is_rounded,
    parse_quantity,
    split_name,
    terminates,
)
from reasoning.problem import Verdict
from reasoning.workers.pool import WorkerPool

# Wall-clock seconds for one symbolic comparison, and the longest answer that is looked into.
TIME_LIMIT_S = 1.2
MAX_ANSWER_LENGTH = 2000

_TEXT_REFERENCE = re.compile(
    r"\\text\{[^{}]*\}|\(?[A-Za-z]\)?|[A-Za-z]{3}[A-Za-z0-9 ,'-]*"
    r"|(?=.*[^\x00-\x7f])[^\W\d_][^\W\d_ ]*"
)
_ENCLOSED = re.compile(r"\\text\{([^{}]*)\}|\(([^()]*)\)")  # \text{5 apples}, (5)
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_CALCULATION = re.compile(r"(?:[-+*/().\d\s{}$%]|\\times|\\cdot|\\div|\\frac)+")


def verify_math(reference: str, answer: str) -> Verdict:
    """Whether `answer` means the same as `reference`.

    - Numbers by value: 0.5 = 1/2 = \\frac12 = 50%. Thousands separators, currencies and Unicode
      digits are read. A unit may be missing on either side; two units must be the same. "50%"
      equals both 50 and 0.5. A decimal may stand for a repeating fraction or an irrational number
      if it is that number to six significant digits.
    - A number asks for a number worked out: "9*2" is no answer to 18 ("9*2 = 18" is).
    - Words by their letters, in any case: \\text{Evelyn} = evelyn, (C) = C.
    - Tuples and intervals in order and with their brackets; sets and lists without order.
    - Everything else by math-verify.

    Raises:
        ValueError: If the reference is empty.
    """
    return verify_math_all([(reference, answer)])[0]


def verify_math_all(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """`verify_math` for many (reference, answer) pairs, with the workers in parallel."""
    verdicts: list[Verdict | None] = [None] * len(pairs)
    symbolic: list[tuple[int, str, str]] = []
    for i, (reference, answer) in enumerate(pairs):
        if not reference.strip():
            raise ValueError("the reference answer is empty: every problem needs one")
        outcome = _decide(reference, answer)
        if isinstance(outcome, Verdict):
            verdicts[i] = outcome
        else:
            symbolic.append((i, *outcome))
    if symbolic:
        results = _symbolic_pool().map((reference, answer) for _, reference, answer in symbolic)
        for (i, _, _), (correct, reason) in zip(symbolic, results):
            verdicts[i] = Verdict(correct, reason)
    return verdicts


def _decide(reference: str, answer: str) -> Verdict | tuple[str, str]:
    """The verdict, or two canonical texts to compare symbolically."""
    if not answer.strip():
        return Verdict(False, "no answer")
    if answer.strip() == reference.strip():
        return Verdict(True, "same text as the reference")
    if len(answer) > MAX_ANSWER_LENGTH:
        return Verdict(False, f"{len(answer)} characters, more than {MAX_ANSWER_LENGTH}")
    expected, number, is_text = _read_reference(reference)
    given = canonical(answer)
    if not given:
        return Verdict(False, "no answer")
    if given.replace(", ", ",") == expected.replace(", ", ","):
        return Verdict(True, f"same as {expected}")
    if number is not None:
        return _compare_number(number, expected, given)
    if is_text:
        if _words(given) == _words(expected):
            return Verdict(True, f"same words as {expected}")
        if len(expected) > 1:  # a single letter may be a variable
            return Verdict(False, f"not the word {_words(expected)}")
    return expected, given


@functools.lru_cache(maxsize=16384)
def _read_reference(reference):
    expected = canonical(reference)
    number = parse_quantity(split_name(expected)[1])
    is_text = number is None and bool(_TEXT_REFERENCE.fullmatch(expected))
    return expected, number, is_text


def _compare_number(number: Quantity, expected: str, given: str) -> Verdict | tuple[str, str]:
    name, value = split_name(given)
    expected_name, _ = split_name(expected)
    if name and expected_name and name != expected_name:
        return Verdict(False, f"gives {name}, not {expected_name}")
    enclosed = _ENCLOSED.fullmatch(value)
    quantity = parse_quantity((enclosed[1] or enclosed[2]) if enclosed else value)
    if quantity is not None:
        return _same_quantity(number, quantity, expected)
    if _CALCULATION.fullmatch(value):
        return Verdict(False, "a calculation, not its result")
    if _WORD.search(value.replace(r"\text", "")):
        return Verdict(False, f"no number, expected {expected}")
    return expected, given


def _same_quantity(number: Quantity, quantity: Quantity, expected: str) -> Verdict:
    values = {quantity.value}
    if quantity.percent != number.percent:
        # The question may have asked for percent: 50% is 50 as well as 0.5.
        values.add(quantity.value / 100 if quantity.percent else quantity.value * 100)
    if not any(_same_number(number, quantity, value) for value in values):
        return Verdict(False, f"not {expected}")
    if number.base != quantity.base and quantity.base:
        return Verdict(False, f"in base {quantity.base}, expected {expected}")
    if number.unit and quantity.unit and number.unit != quantity.unit:
        return Verdict(False, f"in {quantity.unit}, expected {expected}")
    return Verdict(True, f"equal to {expected}")


def _same_number(number, quantity, value):
    return (
        value == number.value
        or (not terminates(number.value) and is_rounded(quantity, number.value))
        or (not terminates(quantity.value) and is_rounded(number, quantity.value))
    )


def _words(text):
    """Lower-case words: without \\text, brackets around a choice, and punctuation."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    return " ".join(re.findall(r"[^\W_]+|[-+*/=<>^\\%$]", text.lower()))


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def _symbolic_pool() -> WorkerPool:
    """The workers of this process, started at the first need."""
    global _pool
    with _pool_lock:
        if _pool is None:
            from reasoning.mathematics import symbolic  # SymPy: only where it is needed

            _pool = WorkerPool(
                symbolic.equivalent,
                num_workers=min(4, os.cpu_count() or 1),
                timeout_s=TIME_LIMIT_S,
                warm_up=symbolic.WARM_UP,
                on_timeout=(False, f"took longer than {TIME_LIMIT_S:g} s to compare"),
                on_crash=(False, "took too much memory to compare"),
            )
        return _pool
