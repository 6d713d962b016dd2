"""Verifies mathematical answers: simple ones in this process, the rest in killable workers.

Most answers are decided in this process, by text and exact fractions. The rest (expressions, sets,
intervals, matrices, equations) goes to `reasoning.mathematics.symbolic` in worker processes, under
hard limits on processor time and memory. No text is evaluated as Python, and nothing blocks: an
answer such as 9^{9^{9^9}} counts as wrong after `CPU_LIMIT_S`. Safe to call from any thread.

`docs/grading.md` states the conventions.
"""

import dataclasses
import functools
import os
import re
import threading
from collections.abc import Sequence

from reasoning.mathematics.numbers import (
    OTHER_NUMBER,
    compare_numerals,
    compare_ratios,
    same_quantity,
    spelled_number,
)
from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.mathematics.reading.quantity import Quantity, parse_quantity
from reasoning.mathematics.reading.text import canonical
from reasoning.mathematics.reading.units import read_unit
from reasoning.mathematics.reading.words import is_text, meaning, same_words
from reasoning.problem import Verdict
from reasoning.workers.pool import WorkerPool

# Processor seconds for one symbolic comparison. A limit on wall-clock time would make verdicts
# depend on what else the machine does; the generous one below only catches a worker that hangs.
CPU_LIMIT_S = 1.2
TIME_LIMIT_S = 30.0
# The most characters of an answer that is compared.
MAX_ANSWER_LENGTH = 2000

_ENCLOSED = re.compile(r"\\text\{([^{}]*)\}|\(([^()]*)\)|\{([^{}]*)\}")  # \text{5 apples}, (5)
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_NAMED = re.compile(
    r"((?:\\?[A-Za-z]++(?:_\{?\w\}?)?'?|\\text\{[^{}]*\}|\([^()=]{1,12}\)| ){1,8})=([^=]*)"
)


def verify_math(reference: str, answer: str, options: GradingOptions = DEFAULT) -> Verdict:
    r"""Verifies that `answer` means the same as `reference`.

    - Numbers are compared by value: 0.5 = 1/2 = \frac12 = 50%. Thousands separators, currencies
      and Unicode digits are read. A unit may be missing on either side; two units must be the same.
      "50%" equals both 50 and 0.5. A decimal may stand for a repeating fraction or an irrational
      number if it is that number to six significant digits; no integer stands for another number.
    - A number must be worked out: "9*2" is no answer to 18 ("9*2 = 18" is).
    - Words are compared by their letters, in any case: \text{Evelyn} = evelyn, (C) = C.
    - Tuples and intervals are compared in order and with their brackets; sets and lists without
      order.
    - Everything else is compared by value at many points, exactly or to many digits.

    Raises:
      ValueError: the reference is empty.
    """
    return verify_math_all([(reference, answer)], options)[0]


def verify_math_all(
    pairs: Sequence[tuple[str, str]], options: GradingOptions = DEFAULT
) -> list[Verdict]:
    """Verifies many (reference, answer) pairs like `verify_math`, with the workers in parallel."""
    verdicts: dict[int, Verdict] = {}
    symbolic: list[tuple[int, str, str]] = []
    for i, (reference, answer) in enumerate(pairs):
        if not reference.strip():
            raise ValueError("the reference answer is empty: give every problem an answer")
        outcome = _decide(reference, answer, options)
        if isinstance(outcome, Verdict):
            verdicts[i] = outcome
        else:
            symbolic.append((i, *outcome))
    if symbolic:
        fields = dataclasses.asdict(options)
        results = _symbolic_pool().map((expected, given, fields) for _, expected, given in symbolic)
        for (i, _, _), (correct, reason) in zip(symbolic, results, strict=True):
            verdicts[i] = Verdict(correct, reason)
    return [verdicts[i] for i in range(len(pairs))]


def _decide(reference: str, answer: str, options: GradingOptions) -> Verdict | tuple[str, str]:
    """Returns the verdict, or two canonical texts to compare symbolically."""
    if not answer.strip():
        return Verdict(False, "no answer")
    if answer.strip() == reference.strip():
        return Verdict(True, "same text as the reference")
    if len(answer) > MAX_ANSWER_LENGTH:
        return Verdict(False, f"{len(answer)} characters, more than {MAX_ANSWER_LENGTH}")
    expected, number, text = _read_reference(reference, options.number_words)
    given = canonical(answer)
    if options.number_words:
        given = spelled_number(given)
    if not given:
        return Verdict(False, "no answer")
    if given.replace(", ", ",") == expected.replace(", ", ","):
        return Verdict(True, f"same as {expected}")
    for compare in (compare_ratios, compare_numerals):
        same = compare(expected, given)
        if same is not None:
            return Verdict(same, f"{'equal to' if same else 'not'} {expected}")
    if number is not None:
        return _compare_number(number, expected, given, options)
    if text:
        if same_words(expected, given):
            return Verdict(True, f"same words as {expected}")
        if text == "all real numbers":
            return r"\mathbb{R}", given
        if len(expected) > 1:  # A single letter may be a variable.
            return Verdict(False, f"not the word {text}")
    return expected, given


@functools.lru_cache(maxsize=16384)
def _read_reference(reference, number_words):
    """Returns (canonical text, its number if it is one, its meaning if it is words)."""
    expected = canonical(reference)
    if number_words:
        expected = spelled_number(expected)
    number = parse_quantity(_unnamed(expected)[1])
    text = number is None and is_text(expected)
    return expected, number, meaning(expected) if text else ""


def _unnamed(text):
    """Splits `"x=5"` into `("x", "5")`; the name is empty if there is none, or if it is no name."""
    match = _NAMED.fullmatch(text)
    if match and len(match[1]) < 60:
        return match[1].strip(), match[2].strip()
    return "", text


def _compare_number(
    number: Quantity, expected: str, given: str, options: GradingOptions
) -> Verdict | tuple[str, str]:
    name, value = _unnamed(given)
    expected_name, expected_value = _unnamed(expected)
    if name and expected_name and name != expected_name:
        return Verdict(False, f"gives {name}, not {expected_name}")
    quantity = _enclosed_quantity(value)
    if quantity is not None:
        fault = same_quantity(number, quantity, options)
        if not fault:
            return Verdict(True, f"equal to {expected}")
        wrong = "" if fault == OTHER_NUMBER else f"{fault}, "
        return Verdict(False, f"{wrong}not {expected}")
    if _WORD.search(re.sub(r"\\text\{[^{}]*\}", "", value)) and "=" not in value + given:
        words = _WORD.findall(re.sub(r"\\text\{[^{}]*\}", "", value))
        if not all(_is_unit(word) for word in words):
            return Verdict(False, f"it is no number, expected {expected}")
    if name and expected_name:
        return expected_value, value
    return expected_value if not expected_name else expected, given


def _is_unit(word):
    return read_unit(f" {word}", known_only=True) is not None


def _enclosed_quantity(text):
    r"""Returns the quantity in a text, through brackets and \text{...} around the whole of it."""
    for _ in range(4):
        quantity = parse_quantity(text)
        enclosed = _ENCLOSED.fullmatch(text)
        if quantity is not None or not enclosed:
            return quantity
        text = next(group for group in enclosed.groups() if group is not None).strip()
    return None


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def _symbolic_pool() -> WorkerPool:
    """Returns the workers of this process; the first call starts them."""
    global _pool
    with _pool_lock:
        if _pool is None:
            from reasoning.mathematics import symbolic  # heavy, so imported only when needed

            _pool = WorkerPool(
                symbolic.equivalent,
                num_workers=min(4, os.cpu_count() or 1),
                timeout_s=TIME_LIMIT_S,
                cpu_s=CPU_LIMIT_S,
                warm_up=symbolic.WARM_UP,
                on_timeout=(False, f"took longer than {CPU_LIMIT_S:g} s to compare"),
                on_crash=(False, "took too much memory to compare"),
                on_lost=(False, "not graded: the grading processes were killed again and again"),
            )
        return _pool
