"""Countdown: reach a target with given numbers, each used exactly once, by `+`, `-` and `*`.

This is the domain in which a search can prune. A first step may lead to a dead end, from which no
further step reaches the target, and one can know that long before the answer.

A solution is a chain: its first step joins two of the numbers, and each further step joins the
result so far with one number more. `reachable` is not limited to chains: it knows all values that
any expression of some numbers can have. An answer is a whole expression, and `fault` judges it.
"""

import functools
import operator
import random
import re
from collections.abc import Callable, Sequence

from reasoning.problem import Problem
from reasoning.tiny_world.language import Language

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
# The given numbers, and the values of steps: the model has to learn arithmetic within these.
SMALLEST, LARGEST, MOST = 1, 9, 99
# Targets that are no given number, so that they differ in kind.
LEAST_TARGET = 10
# The number of values grows fast with the given numbers.
MOST_NUMBERS = 6
# An answer of so many numbers is shorter, however it is written.
MOST_CHARACTERS = 200
_TOKEN = re.compile(r"[1-9][0-9]*|0|[-+*()]")
_BINDING = {"+": 1, "-": 1, "*": 2}

# (left, operator, right): one step, with the numbers that it joins.
Move = tuple[int, str, int]


@functools.lru_cache(maxsize=1 << 16)
def reachable(numbers: tuple[int, ...]) -> frozenset[int]:
    """Returns every value of an expression that uses each number once, and only `+`, `-`, `*`.

    Args:
      numbers: at most `MOST_NUMBERS` numbers, sorted.
    """
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[int] = set()
    for i, a in enumerate(numbers):
        for j in range(i):
            b, rest = numbers[j], (*numbers[:j], *numbers[j + 1 : i], *numbers[i + 1 :])
            for value in {a + b, a - b, b - a, a * b}:
                values |= reachable(tuple(sorted((value, *rest))))
    return frozenset(values)


def is_dead_end(numbers: Sequence[int], target: int) -> bool:
    """Returns whether no expression of the numbers, each used once, has the target's value."""
    return target not in reachable(tuple(sorted(numbers)))


def moves(numbers: Sequence[int], first: bool) -> list[Move]:
    """Returns the steps that a chain may take, each once, in a fixed order.

    Args:
      numbers: the numbers that are left, with the result so far in front.
      first: whether there is no result yet, so that any two numbers may be joined.
    """
    found: dict[Move, None] = {}
    for i in range(len(numbers) if first else 1):
        for j in range(len(numbers)):
            for symbol, apply in OPERATORS.items():
                if i != j and 0 <= apply(numbers[i], numbers[j]) <= MOST:
                    found[numbers[i], symbol, numbers[j]] = None
    return list(found)


def after(numbers: Sequence[int], move: Move) -> list[int]:
    """Returns the numbers that are left after a step, its result in front."""
    left, symbol, right = move
    rest = list(numbers)
    rest.remove(left)
    rest.remove(right)
    return [OPERATORS[symbol](left, right), *rest]


def right_moves(numbers: Sequence[int], target: int, first: bool) -> list[Move]:
    """Returns the steps of `moves` after which a chain still reaches the target."""
    found = []
    for move in moves(numbers, first):
        result, *rest = after(numbers, move)
        if target in _chain_values(result, tuple(sorted(rest))):
            found.append(move)
    return found


@functools.lru_cache(maxsize=1 << 17)
def _chain_values(result: int, rest: tuple[int, ...]) -> frozenset[int]:
    """Returns every value that chains end with, from a result and the sorted numbers left."""
    if not rest:
        return frozenset((result,))
    values: set[int] = set()
    for move in moves((result, *rest), False):
        following, *others = after((result, *rest), move)
        values |= _chain_values(following, tuple(sorted(others)))
    return frozenset(values)


def draw_countdown(rng: random.Random, language: Language, level: int) -> Problem:
    """Draws a problem of `level` numbers that a chain solves, with a dead end beside every step.

    Raises:
      ValueError: the level is above `MOST_NUMBERS`.
    """
    if level > MOST_NUMBERS:
        raise ValueError(f"tiny_countdown has at most {MOST_NUMBERS} numbers: level={level}")
    while True:
        numbers = [rng.randint(SMALLEST, LARGEST) for _ in range(level)]
        left, steps = numbers, []
        while len(left) > 1:
            steps.append(rng.choice(moves(left, not steps)))
            left = after(left, steps[-1])
        target = left[0]
        if level > 1 and (target < LEAST_TARGET or not _can_fail(numbers, steps, target)):
            continue
        return Problem(
            "tiny_countdown",
            ask(rng, language, numbers, target),
            _expression(steps) if steps else str(target),
            {"language": language.name, "numbers": numbers, "target": target,
             "steps": [list(step) for step in steps], "level": level},
        )  # fmt: skip


def ask(rng: random.Random, language: Language, numbers: Sequence[int], target: int) -> str:
    """Returns the question for a target, in one of the language's wordings."""
    wording = rng.choice(language.countdown_questions)
    return wording.format(target, ", ".join(map(str, numbers)))


def _can_fail(numbers: Sequence[int], steps: Sequence[Move], target: int) -> bool:
    """Returns whether a step into a dead end is possible in the place of every step."""
    left = list(numbers)
    for i, step in enumerate(steps):
        if not any(is_dead_end(after(left, m), target) for m in moves(left, i == 0)):
            return False
        left = after(left, step)
    return True


def _dead(numbers: Sequence[int], target: int, first: bool) -> list[Move]:
    return [m for m in moves(numbers, first) if is_dead_end(after(numbers, m), target)]


def work_countdown(
    problem: Problem, speak: Callable[[], Language], slip: Callable[[int], bool]
) -> list[str]:
    """Solves a problem, one operation a line, and then says what is left.

    A slip is a step into a dead end; arithmetic is always right. The last line is the answer, the
    expression that the steps make.
    """
    numbers, target = problem.metadata["numbers"], problem.metadata["target"]
    planned = [(a, symbol, b) for a, symbol, b in problem.metadata["steps"]]
    left, taken = list(numbers), []
    while len(left) > 1:
        i = len(taken)
        if slip(i) and (dead := _dead(left, target, i == 0)):
            taken.append(dead[(sum(left) + i) % len(dead)])
        elif taken == planned[:i]:
            taken.append(planned[i])
        else:
            possible = moves(left, False)
            taken.append(possible[(sum(left) + i) % len(possible)])
        left = after(left, taken[-1])
    return told(numbers, taken, speak)


def told(numbers: Sequence[int], taken: Sequence[Move], speak: Callable[[], Language]) -> list[str]:
    """Returns a chain in words, a line for each step, and the expression as the last line."""
    left, lines = list(numbers), []
    for move in taken:
        left = after(left, move)
        remaining = " ".join(map(str, left))
        lines.append(speak().countdown_step.format(*move, left[0], remaining))
    return [*lines, _expression(taken) if taken else str(numbers[0])]


def _expression(steps: Sequence[Move]) -> str:
    """Returns the expression of a chain, such as ((3 * 4) + 5) - 2."""
    start, symbol, right = steps[0]
    written = f"{start} {symbol} {right}"
    for _, symbol, right in steps[1:]:
        written = f"({written}) {symbol} {right}"
    return written


def fault(answer: str, numbers: Sequence[int], target: int) -> str:
    """Says what is wrong with an answer, or returns an empty string for a right one.

    A right answer is an expression of ASCII digits, + - * and parentheses, with spaces anywhere
    between them. It uses the given numbers, each exactly once, and has the target's value. A sign
    before a number, leading zeros, and a product without * are faults. The numbers are compared
    before anything is computed, so no answer is costly.
    """
    answer = answer.strip(" ")
    if not answer:
        return "no answer"
    if len(answer) > MOST_CHARACTERS:
        return f"longer than {MOST_CHARACTERS} characters"
    tokens = _tokens(answer)
    if tokens is None:
        return "not an expression of numbers, + - * and parentheses"
    used = sorted(int(token) for token in tokens if token.isdigit())
    if used != sorted(numbers):
        return f"uses {used}, not {sorted(numbers)}"
    value = _value(tokens)
    if value is None:
        return "not a well-formed expression"
    return "" if value == target else f"is {value}, not {target}"


def _tokens(text: str) -> list[str] | None:
    """Splits an expression; returns None for other characters, and for numbers like 007."""
    tokens, position, digit_ends = [], 0, -1
    while position < len(text):
        if text[position] == " ":
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None or (match[0].isdigit() and position == digit_ends):
            return None
        position = match.end()
        if match[0].isdigit():
            digit_ends = position
        tokens.append(match[0])
    return tokens


def _value(tokens: Sequence[str]) -> int | None:
    """Computes an expression; returns None if it is not well formed. It does not recurse."""
    values: list[int] = []
    waiting: list[str] = []

    def reduce(binding: int) -> None:
        while waiting and _BINDING.get(waiting[-1], 0) >= binding:
            right, left = values.pop(), values.pop()
            values.append(OPERATORS[waiting.pop()](left, right))

    operand = True  # What comes next: a number or an opening, else an operator or a closing.
    for token in tokens:
        if operand != (token == "(" or token.isdigit()):
            return None
        if token.isdigit():
            values.append(int(token))
            operand = False
        elif token == "(":
            waiting.append(token)
        elif token == ")":
            reduce(1)
            if not waiting:
                return None
            waiting.pop()
        else:
            reduce(_BINDING[token])
            waiting.append(token)
            operand = True
    if operand:
        return None
    reduce(1)
    return None if waiting else values[0]
