"""Tests reasoning-gym tasks: splits, verdicts, and verifiers that must not execute their input."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import time

import pytest
from reasoning_gym.factory import DATASETS
from rich.console import Console

from launch import run_grade
from reasoning.problem import Problem
from reasoning.tasks import get_task
from reasoning.tasks import reasoning_gym_task as rg

# Tasks of every kind that are fast to generate, and all with a guard.
FAST = {"chain_sum", "basic_arithmetic", "leg_counting", "number_sorting", "knights_knaves", "gcd"}
NAMES = sorted({*FAST, *rg.GUARDS, *rg.BY_REFERENCE})


def _problems(name, count=2):
    return get_task(f"rg:{name}").problems("train", count, seed=3)


def _entry(problem):
    """reasoning-gym's entry, for tasks that do not depend on the order of sets."""
    numbers = problem.metadata
    made = rg._create(problem.task.partition(":")[2], (), rg._BATCH, numbers["seed"])
    assert made[numbers["index"]]["question"] == problem.question
    return made[numbers["index"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_right_and_nonsense_is_not(name):
    task = get_task(f"rg:{name}")
    problems = _problems(name)
    assert len({p.question for p in problems}) == 2
    for problem in problems:
        if "Integral(" in problem.answer:
            continue  # not worked out; see `test_an_integral_is_not_its_own_solution`
        right, empty, wrong = task.verify_all(
            [problem] * 3, [problem.answer + " ", "", "the moon is made of cheese"]
        )
        assert right.correct, right.reason
        assert not empty.correct and not wrong.correct


def test_splits_share_no_question_and_the_seed_decides():
    # Few terms of one digit: questions do repeat.
    task = get_task("rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1")
    train, test = task.problems("train", 300, 0), task.problems("test", 300, 0)
    assert not {p.question for p in train} & {p.question for p in test}
    assert task.problems("train", 20, 0) == train[:20]
    assert {p.question for p in task.problems("train", 20, 1)} != {p.question for p in train[:20]}
    assert all(p.task == task.name for p in train)


def test_parameters_reach_the_generator():
    problems = get_task("rg:chain_sum?min_terms=6&max_terms=6").problems("test", 5, 0)
    assert all(len(re.findall(r"\d+", p.question)) == 6 for p in problems)


def test_how_many_must_be_said_and_possible():
    with pytest.raises(ValueError, match="give a count"):
        get_task("rg:chain_sum").problems("train", None, 0)
    # A handful of questions, all of which are for training.
    task = get_task("rg:gcd?min_value=5&max_value=6&min_numbers=2&max_numbers=2")
    assert len({p.question for p in task.problems("train", 50, 0)}) < 5
    with pytest.raises(ValueError, match="too few different questions"):
        task.problems("test", 5, 0)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"entry": {"question": "1 + 1", "answer": "2", "metadata": {}}},
        {"seed": 0},
        {"seed": 0, "index": 10**9},
        {"seed": -1, "index": 0},
        {"seed": 0, "index": True},
        {"seed": "__import__('os')", "index": 0},
    ],
)
def test_a_problem_without_its_metadata_is_an_error(metadata):
    with pytest.raises(ValueError, match="needs the metadata.*seed.*index"):
        get_task("rg:chain_sum").verify(Problem("rg:chain_sum", "1 + 1", "2", metadata), "2")


def test_a_problem_that_its_numbers_do_not_give_is_an_error():
    (problem, other) = _problems("chain_sum")
    changed = dataclasses.replace(problem, question=other.question)
    with pytest.raises(
        ValueError, match="give another question than .* generate the problems again"
    ):
        get_task("rg:chain_sum").verify(changed, problem.answer)
    # A graded file may lack the question: then the numbers alone decide.
    unknown = dataclasses.replace(problem, question="")
    assert get_task("rg:chain_sum").verify(unknown, problem.answer).correct


# Tasks whose problems depend on the order of sets, and so on the interpreter's hash seed.
@pytest.mark.parametrize(
    "name", ["isomorphic_strings", "polynomial_multiplication", "ransom_note", "word_ladder"]
)
def test_problems_are_the_same_in_every_process(name):
    program = (
        f"from reasoning.tasks import get_task\n"
        f"print([p.question for p in get_task('rg:{name}').problems('train', 3, seed=3)])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    problems = _problems(name, 3)
    assert other.stdout.strip() == str([p.question for p in problems]), other.stderr
    verdicts = get_task(f"rg:{name}").verify_all(problems, [p.answer for p in problems])
    assert all(v.correct for v in verdicts)


# --- Verifiers that evaluate the answer, or the entry.


@pytest.mark.parametrize(
    "name, field",
    [
        ("number_sorting", "sorted_numbers"),
        ("number_sorting", "answer"),
        ("simple_integration", "integrand"),
        ("intermediate_integration", "integrand"),
        ("polynomial_multiplication", "result"),
        ("bitwise_arithmetic", "problem"),
        ("bitwise_arithmetic", "answer"),
    ],
)
def test_nothing_in_a_graded_file_is_run(name, field, tmp_path):
    """A record's entry holds code where reasoning-gym has a number: it is never looked at."""
    canary = tmp_path / "canary"
    code = f"[open({str(canary)!r}, 'w').close(), 1][1]"
    (problem, _) = _problems(name)
    entry = {"question": problem.question, "answer": problem.answer, "metadata": {}}
    (entry if field in entry else entry["metadata"])[field] = code
    fields = {"question": problem.question, "answer": code, "response": "<answer>[1]</answer>"}
    file, graded = tmp_path / "responses.jsonl", tmp_path / "graded.jsonl"
    file.write_text(json.dumps(fields | {"metadata": {"entry": entry}}) + "\n")
    with pytest.raises(ValueError, match="an entry from a file is not trusted"):
        run_grade.run(f"rg:{name}", str(file), str(graded), Console(quiet=True))
    # Beside the numbers that a problem is made from, it changes nothing.
    file.write_text(json.dumps(fields | {"metadata": {"entry": entry, **problem.metadata}}) + "\n")
    run_grade.run(f"rg:{name}", str(file), str(graded), Console(quiet=True))
    assert not json.loads(graded.read_text())["correct"]
    assert not canary.exists()


@pytest.mark.parametrize("guard", dict.fromkeys(rg.GUARDS.values()), ids=lambda guard: guard.__name__)
def test_guards_take_linear_time(guard):
    entry = {"metadata": {"numbers": [1, 2, 3, 4]}}
    texts = ["1" * 10_000, "1." * 5000, "a " * 5000, "1 " * 5000, "((" * 5000, "-" * 10_000]
    start = time.process_time()
    for text in texts:
        guard(text + "!", entry)
    assert time.process_time() - start < 1


def test_every_verifier_that_evaluates_text_is_known():
    """By the source of whole modules, so that helpers of a verifier count, too."""
    evaluates = re.compile(
        r"(?<![\w.])(?:eval|exec)\(|(?:sympy|sp)\.(?:parse_expr|sympify)\(|[ =(]parse_expr\("
    )
    found = set()
    for name, (cls, _) in DATASETS.items():
        source = inspect.getsource(sys.modules[cls.__module__])
        if evaluates.search(source):
            found.add(name)
    only_in_generation = {"codeio", "basic_arithmetic", "bitwise_arithmetic"}  # not of the answer
    own_parser = {"propositional_logic"}  # a `parse_expr` that builds a tree of its own
    assert found == set(rg.EVALUATION_GUARDS) | only_in_generation | own_parser | {"number_sorting"}


def test_an_unknown_evaluating_verifier_is_refused(monkeypatch):
    monkeypatch.delitem(rg.EVALUATION_GUARDS, "countdown")
    with pytest.raises(ValueError, match="evaluates the model's answer"):
        get_task("rg:countdown")


@pytest.mark.parametrize("name", sorted(rg.EVALUATION_GUARDS))
def test_no_verifier_runs_code(name, tmp_path):
    canary = tmp_path / "canary"
    write = f"open({str(canary)!r}, 'w').close()"
    eval(write)  # the payload works where text is evaluated
    assert canary.exists()
    canary.unlink()
    payloads = [
        write,
        f"[{write}]",
        f"({write}, 1)[1]",
        f"__import__('os').system('touch {canary}')",
        f"exec({write!r})",
        f"eval({write!r})",
        f"[x for x in [{write}]]",
        f"(lambda: {write})()",
        f"x.func.__globals__['__builtins__']['open']({str(canary)!r}, 'w')",
        f"sin(x).__class__.__init__.__globals__ or {write}",
        f"{{{write}: 1}}",
        f"f'{{{write}}}'",
        f"1 if {write} else 2",
        f"S({write!r})",
    ]
    (problem, _) = _problems(name)
    verdicts = get_task(f"rg:{name}").verify_all([problem] * len(payloads), payloads)
    assert not any(v.correct for v in verdicts)
    assert not canary.exists()


def test_guarded_verifiers_still_see_formulas():
    # Its references may hold an unevaluated Integral(...): no answer, though SymPy accepts it.
    for name in set(rg.GUARDS) - {"intermediate_integration"}:
        entry = rg._create(name, (), 1, 3)[0]
        assert rg.GUARDS[name]((entry["answer"] or "").strip(), entry), name
    assert rg.GUARDS["simple_integration"]("x**3/3 - 2*sin(x) + exp(2*x)*log(x) + C", {})
    assert not rg.GUARDS["simple_integration"]("x.diff", {})
    assert not rg.GUARDS["simple_integration"]("lambda: x", {})


def test_puzzle24_must_use_the_given_numbers():
    task = get_task("rg:puzzle24")
    problem = task.problems("train", 1, 0)[0]
    assert sorted(_entry(problem)["metadata"]["numbers"]) != [1, 1, 4, 6]
    assert not task.verify(problem, "6 * 4 * 1 * 1").correct


@pytest.mark.parametrize(
    "name, hostile",
    [
        ("complex_arithmetic", "nan"),
        ("complex_arithmetic", "nan+nanj"),
        ("game_of_life_halting", "whatever"),
        ("gsm_symbolic", "{} or 7"),
        ("gsm_symbolic", "-{}"),
        ("fraction_simplification", "{} or 1/7"),
    ],
)
def test_what_the_verifiers_themselves_would_accept(name, hostile):
    problem = _problems(name)[0]
    wrong = hostile.format(problem.answer)
    assert DATASETS[name][0](DATASETS[name][1](size=1)).score_answer(
        wrong, _entry(problem)
    ) >= 1  # fmt: skip
    assert not get_task(f"rg:{name}").verify(problem, wrong).correct


def test_an_integral_is_not_its_own_solution():
    task = get_task("rg:simple_integration")
    problem = task.problems("train", 1, 0)[0]
    integrand = _entry(problem)["metadata"]["integrand"]
    assert not task.verify(problem, f"Integral({integrand}, x)").correct
    assert task.verify(problem, problem.answer).correct


def test_a_tower_of_powers_is_given_up_in_time():
    task = get_task("rg:countdown")
    problem = task.problems("train", 1, 0)[0]
    verdicts = task.verify_all([problem] * 2, ["9**9**9**9", problem.answer])
    assert [v.correct for v in verdicts] == [False, True]
