"""Countdown: problems, dead ends and the grader, against solvers written another way."""

import ast
import collections
import itertools
import random
import re
import sys
import time

import pytest

from reasoning.problem import Problem
from reasoning.response import parse_response
from reasoning.tasks import get_task
from reasoning.tiny_world import corpora, countdown, countdown_corpus, domains, splits
from reasoning.tiny_world.language import LANGUAGES
from reasoning.tiny_world.planted_errors import planted_errors

SPEC = "tiny_countdown"
STEP = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+), (?:left|bleibt) ([\d ]+)")
QUESTION = re.compile(r"(?:Make|Reach|Bilde|Erreiche) (\d+) (?:from|with|aus|mit) ([\d, ]+)\.")


def all_values(numbers):
    """Every value of an expression of the numbers: over orders, operators and ways to bracket."""

    def of(sequence):
        if len(sequence) == 1:
            yield sequence[0]
        for cut in range(1, len(sequence)):
            for a, b in itertools.product(set(of(sequence[:cut])), set(of(sequence[cut:]))):
                yield from (a + b, a - b, a * b)

    return {value for order in set(itertools.permutations(numbers)) for value in of(order)}


def is_right(answer, numbers, target):
    """The verdict by Python's own parser, for answers that Python reads as expressions."""
    try:
        tree = ast.parse(answer.strip(" "), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    nodes = list(ast.walk(tree.body))
    allowed = (ast.BinOp, ast.Constant, ast.Add, ast.Sub, ast.Mult)
    if not all(isinstance(node, allowed) for node in nodes):
        return False
    used = [node.value for node in nodes if isinstance(node, ast.Constant)]
    if any(type(value) is not int for value in used) or sorted(used) != sorted(numbers):
        return False
    return eval(compile(tree, "answer", "eval"), {"__builtins__": {}}) == target


def read(question):
    """The target and the numbers of a question, from its text alone."""
    target, numbers = QUESTION.fullmatch(question).groups()
    return int(target), [int(each) for each in numbers.split(", ")]


def drawn(split="train", count=100, level=4, seed=0):
    return list(itertools.islice(splits.problems(SPEC, split, seed, (level, level)), count))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_reachable_values_are_those_of_all_expressions(size):
    rng = random.Random(size)
    for _ in range(25):
        numbers = sorted(rng.randint(0, 20) for _ in range(size))
        found = countdown.reachable(tuple(numbers))
        assert found == all_values(numbers)
        for target in (*sorted(found)[:3], max(found) + 1):
            shuffled = rng.sample(numbers, size)
            assert countdown.is_dead_end(shuffled, target) == (target not in found)


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_problems_are_solvable_and_asked_as_they_are(level):
    split = "test" if level >= domains.LEVELS[SPEC][0] else "train"
    for problem in drawn(split, 12, level):
        target, numbers = read(problem.question)
        assert len(numbers) == level and problem.metadata["numbers"] == numbers
        assert target in all_values(numbers) and is_right(problem.answer, numbers, target)


def test_most_first_steps_lead_to_a_dead_end():
    """There is something to prune, and it can be known from what is left."""
    dead = []
    for problem in drawn(count=60):
        target, numbers = read(problem.question)
        for step in countdown.moves(numbers, True):
            dead.append(target not in all_values(countdown.after(numbers, step)))
    assert 0.55 < sum(dead) / len(dead) < 0.8


def test_the_order_of_the_numbers_does_not_give_the_solution_away():
    orders = [
        [p.metadata["numbers"].index(step[2]) for step in p.metadata["steps"]]
        for p in drawn(count=200)
    ]
    ordered = sum(each == sorted(each) for each in orders)
    assert ordered < 0.45 * len(orders)


@pytest.mark.parametrize("slip", [None, 0, 1, 2])
def test_worked_solutions_restate_what_is_left(slip):
    """Arithmetic is right in every line; a slip is the first step into a dead end."""
    for problem in drawn():
        target, numbers = read(problem.question)
        language = LANGUAGES[problem.metadata["language"]]
        *lines, answer = domains.WORK[SPEC](problem, lambda: language, lambda i: i == slip)
        left = collections.Counter(numbers)
        for i, line in enumerate(lines):
            a, symbol, b, value, remaining = STEP.fullmatch(line).groups()
            assert eval(f"{a} {symbol} {b}") == int(value) <= countdown.MOST
            used = collections.Counter([int(a), int(b)])
            assert used <= left
            left = left - used + collections.Counter([int(value)])
            assert sorted(left.elements()) == sorted(map(int, remaining.split()))
            assert remaining.split()[0] == value
            alive = target in all_values(list(left.elements()))
            assert alive == (slip is None or i < slip)
        assert len(lines) == len(numbers) - 1
        assert is_right(answer, numbers, target) == (slip is None)
        # The expression is what the lines compute, whether right or wrong.
        assert eval(answer) == int(value)


def test_right_moves_are_those_that_a_chain_can_finish():
    for problem in drawn(count=10, level=3):
        target, numbers = read(problem.question)
        first_steps, second_steps = set(), {}
        for a, b, c in set(itertools.permutations(numbers)):
            for first, second in itertools.product("+-*", repeat=2):
                value = eval(f"{a} {first} {b}")
                if 0 <= value <= countdown.MOST and eval(f"({value}) {second} {c}") == target:
                    first_steps.add((a, first, b))
                    second_steps.setdefault((a, first, b), set()).add((value, second, c))
        assert set(countdown.right_moves(numbers, target, True)) == first_steps
        assert tuple(problem.metadata["steps"][0]) in first_steps
        for step, expected in second_steps.items():
            left = countdown.after(numbers, step)
            assert set(countdown.right_moves(left, target, False)) == expected


HOSTILE = {
    "": "no answer",
    "   ": "no answer",
    "9**9**9**9": "uses",
    "3 ** 4 + 5 + 2": "not a well-formed",
    "3**4": "uses",
    "(" * 1_000_000: "longer",
    "(" * 1_000_000 + "3" + ")" * 1_000_000: "longer",
    "9" * 5_000_000: "longer",
    "9" * 200: "uses",
    "3" + " " * 1_000_000 + "*4": "longer",
    "٣ * 4 + 5 + 2": "not an expression",
    "３ * 4 + 5 + 2": "not an expression",
    "3² * 4 + 5 + 2": "not an expression",
    "3 × 4 + 5 + 2": "not an expression",
    "3 − 4 + 5 + 2": "not an expression",
    "3 * 4 + 5 + 02": "not an expression",
    "03 * 4 + 5 + 2": "not an expression",
    "3 * 4 + 5 + 2_": "not an expression",
    "3 * 4 + 5 + 2.0": "not an expression",
    "3 * 4 + 5 + 2 = 19": "not an expression",
    "19": "uses",
    "3 * 4 + 5 + 2 + 0": "uses",
    "3 * 4 + 5": "uses",
    "3 * 4 + 5 + 2 + 2 - 2": "uses",
    "3 * 4 + 5 + 1 + 1": "uses",
    "34 + 5 + 2": "uses",
    "3 4 + 5 + 2": "not a well-formed",
    "3(4) + 5 + 2": "not a well-formed",
    "(3)(4) + 5 + 2": "not a well-formed",
    "-3 * 4 + 5 + 2": "not a well-formed",
    "3 * 4 + 5 - -2": "not a well-formed",
    "3 * 4 + 5 + 2 +": "not a well-formed",
    "3 *** 4 + 5 + 2": "not a well-formed",
    "3 * 4 + 5 + 2 ()": "not a well-formed",
    "(3 * 4 + 5 + 2": "not a well-formed",
    "3 * 4 + 5 + 2)": "not a well-formed",
    ")3 * 4 + 5 + 2(": "not a well-formed",
    "3 * 4 + 5 + 2\n": "not an expression",
    "3 * 4 + 5 + 2; 19": "not an expression",
    "3 * 4 + 5 + 2 # 19": "not an expression",
    "3 // 4 + 5 + 2": "not an expression",
    "3 * 4 + 5 + 2 or 19": "not an expression",
    "__import__('os')": "not an expression",
    "3 * 4 + 5 - 2": "is 15, not 19",
    "3 * (4 + 5) - 2": "is 25, not 19",
    "\x003 * 4 + 5 + 2": "not an expression",
}


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: repr(answer[:24]))
def test_hostile_answers_are_rejected_at_once(answer):
    start = time.perf_counter()
    assert countdown.fault(answer, [3, 4, 5, 2], 19).startswith(HOSTILE[answer])
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    "answer",
    ["3 * 4 + 5 + 2", "((3 * 4) + 5) + 2", "2+5+4*3", " (((3)*4)) +5+ 2 ", "2 + (5 + (4 * 3))"],
)
def test_right_answers_in_any_writing(answer):
    assert countdown.fault(answer, [3, 4, 5, 2], 19) == ""


def test_deep_but_short_answers_need_no_deep_stack():
    """The grader does not recurse: it works where little of Python's stack is left."""
    deep = "(" * 95 + "3" + ")" * 95

    def at_depth(left):
        return at_depth(left - 1) if left else countdown.fault(deep, [3], 3)

    used = 0
    frame = sys._getframe()
    while frame := frame.f_back:
        used += 1
    assert at_depth(sys.getrecursionlimit() - used - 60) == ""


def test_the_grader_agrees_with_python_on_random_answers():
    """Mutations of right answers, and strings of the grammar's characters."""
    rng, verdicts = random.Random(0), collections.Counter()
    pieces = [*"123456789", "0", "12", "+", "-", "*", "(", ")", " ", "**", "//", ".", "_", "=", "e"]
    for problem in drawn(count=150):
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        for _ in range(60):
            text = list(problem.answer)
            for _ in range(rng.randint(0, 3)):
                place = rng.randrange(len(text) + 1)
                text[place : place + rng.randint(0, 2)] = [rng.choice(pieces)]
            answer = "".join(text)
            ours = not countdown.fault(answer, numbers, target)
            assert ours == is_right(answer, numbers, target), (answer, numbers, target)
            verdicts[ours] += 1
        noise = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        assert not countdown.fault(noise, numbers, target) == is_right(noise, numbers, target)
    assert min(verdicts.values()) > 500


def test_the_task_grades_what_stands_in_a_response():
    task = get_task(SPEC)
    problem = Problem(SPEC, "", "", {"language": "en", "numbers": [3, 4, 5, 2], "target": 19})
    right = " <think>\n 3 * 4 = 12, left 12 5 2\n</think><answer> (3 * 4 + 5) + 2</answer>"
    for response, correct in (
        (right, True),
        (" 3 * 4 = 12, left 12 5 2\n so (3 * 4 + 5) + 2", True),
        (" 2 + 5 + 3 * 4", True),
        (right.replace("</answer>", ""), False),
        (" <think>\n (3 * 4 + 5) + 2", False),
        (right + "<answer> (3 * 4 + 5) + 2</answer>", False),
        (" so 19", False),
    ):
        answer = task.extract(response) or ""
        assert task.verify(problem, answer).correct == correct, response


def test_too_many_numbers_are_refused():
    with pytest.raises(ValueError, match="7 numbers: give at most high=6") as error:
        get_task(f"{SPEC}?high=7")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="level=7"):
        countdown.draw_countdown(random.Random(0), LANGUAGES["en"], 7)


def test_planted_errors_are_first_steps_into_a_dead_end():
    problems = drawn("test", 40)
    solutions = planted_errors(SPEC, problems, random.Random(0))
    assert sum(each.first_error is not None for each in solutions) == 20
    for problem, solution in zip(problems, solutions, strict=True):
        target, numbers = read(problem.question)
        dead = [
            target not in all_values([int(x) for x in STEP.fullmatch(line)[5].split()])
            for line in solution.steps
        ]
        assert is_right(solution.answer, numbers, target) == (solution.first_error is None)
        assert (dead.index(True) if any(dead) else None) == solution.first_error


@pytest.fixture(scope="module")
def documents():
    return corpora.documents("countdown", 3000, seed=0)


def _asked(documents):
    for text in documents:
        question, _, response = text.removeprefix("User: ").partition("\nAssistant:")
        if response:
            target, numbers = read(question)
            yield target, numbers, response


def test_no_test_problem_is_in_the_corpus_in_any_order_or_language(documents):
    told = {(target, *sorted(numbers)) for target, numbers, _ in _asked(documents)}
    assert len(told) > 1000
    for seed in range(2):
        problems = [read(p.question) for p in drawn("test", 600, seed=seed)]
        held_out = {(target, *sorted(numbers)) for target, numbers in problems}
        assert len(held_out) > 300 and not held_out & told


def test_the_corpus_has_right_attempts_and_dead_ends(documents):
    """Every line is right arithmetic and the answer is what the lines say; some miss the target."""
    right, styles = collections.Counter(), collections.Counter()
    dead = endings = 0
    for target, numbers, response in _asked(documents):
        parsed = parse_response(response)
        lines = [STEP.search(line) for line in response.splitlines()]
        lines = [line.groups() for line in lines if line]
        answer = get_task(SPEC).extract(response)
        for a, symbol, b, value, _ in lines:
            assert eval(f"{a} {symbol} {b}") == int(value)
        assert not lines or eval(answer) == int(lines[-1][3])
        correct = is_right(answer, numbers, target)
        if len(numbers) == 4:
            right[correct] += 1
            dead += bool(lines) and target not in all_values([int(x) for x in lines[0][4].split()])
        endings += numbers[0] > countdown.LARGEST
        styles["tagged" if parsed.well_formed else "untagged" if lines else "direct"] += 1
    assert 0.65 < right[True] / right.total() < 0.85
    assert 0.05 < dead / right.total() < 0.25
    assert 0.2 < endings / styles.total() < 0.3
    for style, weight in countdown_corpus.STYLE_WEIGHTS.items():
        assert styles[style] / styles.total() == pytest.approx(weight / 100, abs=0.03)


def test_corpora_by_name():
    assert corpora.documents("countdown", 20, 1) == corpora.documents("countdown", 20, 1)
    assert corpora.documents("countdown", 20, 1) != corpora.documents("countdown", 20, 2)
    with pytest.raises(ValueError, match="corpus 'news' is unknown; choose from web, countdown"):
        corpora.documents("news", 1, 0)
    with pytest.raises(ValueError, match="varied=0.5"):
        corpora.documents("countdown", 1, 0, 0.5)
