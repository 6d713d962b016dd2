"""Procedural problems of reasoning-gym (arXiv:2505.24760), each with its own verifier.

Some of its verifiers evaluate the model's answer as Python (`eval`, SymPy's `parse_expr`). Those
see only answers that pass a guard here, which lets through nothing but literals or formulas; a
task that evaluates answers and has no guard here is refused. Some others accept what is no answer;
these have a guard, or are replaced. All verifiers run in worker processes under a hard limit of
time and memory.
"""

import ast
import functools
import hashlib
import inspect
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from reasoning.mathematics.verifier import verify_math_all
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task
from reasoning.workers.pool import WorkerPool

# Wall-clock seconds for one verdict, and the longest answer that is looked into.
TIME_LIMIT_S = 1.2
MAX_ANSWER_LENGTH = 10_000
# One question in so many is a test question, by a hash of its text.
_TEST_ONE_IN = 8

_FUNCTIONS = (
    "sin cos tan cot sec csc sinh cosh tanh asin acos atan asinh acosh atanh exp log ln sqrt Abs pi"
)
_FORMULA = re.compile(
    rf"(?:\s|[-+*/^()]|\d+(?:\.\d*)?|(?<![A-Za-z])(?:{'|'.join(_FUNCTIONS.split())}|[A-Za-z])"
    r"(?![A-Za-z_]))*"
)
_ARITHMETIC = re.compile(r"[-+*/() \d]*")
_FRACTION = re.compile(r"\$?(?:-?\\[dt]?frac\{-?\d+\}\{\d+\}|-?\d+\s*/\s*\d+)\$?")
_COMPLEX_NUMBER = re.compile(r"[-+*(). \deEij]*")
_PLAIN_WORDS = re.compile(r"[\w \n.#-]*")


def _is_formula(answer: str, entry: dict[str, Any]) -> bool:
    return bool(_FORMULA.fullmatch(answer))


def _is_arithmetic(answer: str, entry: dict[str, Any]) -> bool:
    return bool(_ARITHMETIC.fullmatch(answer))


def _is_arithmetic_of_the_given_numbers(answer: str, entry: dict[str, Any]) -> bool:
    # The verifier counts the numbers and does not look which they are: 6*4*1*1 for any 24.
    used = sorted(map(int, re.findall(r"\d+", answer)))
    return _is_arithmetic(answer, entry) and used == sorted(entry["metadata"]["numbers"])


def _is_fraction(answer: str, entry: dict[str, Any]) -> bool:
    # The verifier takes the first fraction it finds, whatever else there is.
    return bool(_FRACTION.fullmatch(answer))


def _is_complex_number(answer: str, entry: dict[str, Any]) -> bool:
    # The verifier gives the full score to "nan".
    return bool(_COMPLEX_NUMBER.fullmatch(answer))


def _is_literal(answer: str, entry: dict[str, Any]) -> bool:
    if _PLAIN_WORDS.fullmatch(answer):
        return True
    try:
        ast.literal_eval(answer)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


# The tasks whose verifiers evaluate the answer, and what may reach them.
EVALUATION_GUARDS = {
    "binary_matrix": _is_literal,
    "countdown": _is_arithmetic,
    "intermediate_integration": _is_formula,
    "n_queens": _is_literal,
    "polynomial_multiplication": _is_formula,
    "puzzle24": _is_arithmetic_of_the_given_numbers,
    "simple_integration": _is_formula,
    "spiral_matrix": _is_literal,
    "string_insertion": _is_literal,
}
GUARDS = EVALUATION_GUARDS | {
    "complex_arithmetic": _is_complex_number,
    "fraction_simplification": _is_fraction,
}
# Whose verifiers accept any text, or the first number in it: compared with the reference instead.
BY_REFERENCE = frozenset({"game_of_life_halting", "gsm_symbolic"})
# These evaluate the reference answer or the question, which are reasoning-gym's own.
_EVALUATES_OWN_TEXT = frozenset({"number_sorting"})
_EVALUATION = re.compile(r"(?<![\w.])(?:eval|exec)\(|\b(?:parse_expr|sympify)\(")


class ReasoningGymTask(Task):
    """One reasoning-gym task. Training and test problems differ in every question.

    Args:
        name: The spec.
        dataset: reasoning-gym's name of the task, such as "chain_sum".
        **parameters: Fields of its config, such as `min_terms`.

    Raises:
        ValueError: If there is no such task or parameter, or its verifier is unsafe.
    """

    def __init__(self, name: str, dataset: str = "", **parameters):
        super().__init__(name)
        self._dataset, self._parameters = dataset, tuple(sorted(parameters.items()))
        import reasoning_gym  # noqa: F401  seconds, not to be counted below

        start = time.perf_counter()
        _create(dataset, self._parameters, size=1, seed=0)  # raises if it cannot
        # Some load fonts or dictionaries, too long to do inside the limit of a first verdict.
        self._needs_own_pool = time.perf_counter() - start > TIME_LIMIT_S / 10
        _refuse_unsafe(dataset)

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        if split not in ("train", "test"):
            raise ValueError(f"{self.name} has the splits train and test, not {split!r}")
        if count is None or count < 1:
            raise ValueError(f"{self.name} makes as many problems as you like: say how many")
        share = 1 / _TEST_ONE_IN if split == "test" else 1 - 1 / _TEST_ONE_IN
        problems: list[Problem] = []
        for batch in range(20):
            missing = count - len(problems)
            digest = hashlib.blake2b(f"{seed} {batch}".encode(), digest_size=4).digest()
            made = _create(
                self._dataset,
                self._parameters,
                # Some tasks prepare all their problems at once, so no more than it takes.
                size=int(missing / share * 1.2) + 8,
                seed=int.from_bytes(digest, "little"),
            )
            for i in range(len(made)):
                entry = made[i]
                if _is_test(entry["question"]) == (split == "test"):
                    problems.append(self._problem(entry))
                    if len(problems) == count:
                        return problems
        raise ValueError(
            f"{self.name} has too few different questions for {count} {split} problems: widen its"
            " parameters"
        )

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        if self._dataset in BY_REFERENCE:
            pairs = zip(problems, answers, strict=True)
            return verify_math_all([(problem.answer, answer) for problem, answer in pairs])
        verdicts: list[Verdict | None] = [None] * len(problems)
        calls = {}
        guard = GUARDS.get(self._dataset)
        for i, (problem, answer) in enumerate(zip(problems, answers, strict=True)):
            entry, answer = self._entry(problem), answer.strip()
            if len(answer) > MAX_ANSWER_LENGTH:
                reason = f"{len(answer)} characters, an answer has at most {MAX_ANSWER_LENGTH}"
                verdicts[i] = Verdict(False, reason)
            elif guard and not guard(answer, entry):
                verdicts[i] = Verdict(False, "not in the form the verifier may look at")
            else:
                calls[i] = (self._dataset, self._parameters, answer, entry)
        if calls:
            example = (self._dataset, self._parameters) if self._needs_own_pool else _QUICK_EXAMPLE
            pool = _scoring_pool(*example)
            for i, verdict in zip(calls, pool.map(calls.values())):
                verdicts[i] = verdict
        return verdicts

    def _problem(self, entry):
        # Tasks with many right answers give no reference.
        return Problem(self.name, entry["question"], entry["answer"] or "", {"entry": entry})

    def _entry(self, problem):
        if "entry" not in problem.metadata:
            raise ValueError(
                f'{self.name}: its verifier needs reasoning-gym\'s entry, {{"metadata": {{"entry":'
                ' {"question": ..., "answer": ..., "metadata": ...}}}; this record has none'
            )
        return problem.metadata["entry"]


def score(dataset: str, parameters: tuple, answer: str, entry: dict[str, Any]) -> Verdict:
    """The verdict of reasoning-gym's verifier. Runs in workers."""
    verifier = _verifier(dataset, parameters)
    try:
        value = float(verifier.score_answer(answer, entry))
    except Exception as error:  # verifiers raise on answers they did not expect
        return Verdict(False, f"the verifier cannot read the answer: {type(error).__name__}")
    return Verdict(value >= 1.0, f"reasoning-gym scores {value:.3g} of 1")


@functools.lru_cache(maxsize=32)
def _verifier(dataset, parameters):
    return _create(dataset, parameters, size=1, seed=0)


def _create(dataset, parameters, size, seed):
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if dataset not in DATASETS:
        raise ValueError(
            f"reasoning-gym has no task {dataset!r}; write rg:NAME, such as rg:chain_sum (see"
            " reasoning_gym.factory.DATASETS)"
        )
    if {"size", "seed"} & dict(parameters).keys():
        raise ValueError(f"rg:{dataset}: size and seed are not parameters, they come from the run")
    try:
        return reasoning_gym.create_dataset(dataset, size=size, seed=seed, **dict(parameters))
    except (TypeError, ValueError, AssertionError) as error:
        _, config = DATASETS[dataset]
        fields = [f for f in inspect.signature(config).parameters if f not in ("size", "seed")]
        raise ValueError(f"rg:{dataset}: {error}; its parameters are {', '.join(fields)}") from None


def _refuse_unsafe(dataset):
    from reasoning_gym.factory import DATASETS

    if dataset in EVALUATION_GUARDS or dataset in _EVALUATES_OWN_TEXT:
        return
    if _EVALUATION.search(inspect.getsource(DATASETS[dataset][0].score_answer)):
        raise ValueError(
            f"rg:{dataset}: its verifier evaluates the model's answer as Python; add a guard for it"
            " to reasoning.tasks.reasoning_gym_task.EVALUATION_GUARDS"
        )


def _is_test(question):
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _TEST_ONE_IN == 0


_QUICK_EXAMPLE = ("chain_sum", ())


@functools.cache
def _scoring_pool(dataset: str, parameters: tuple) -> WorkerPool:
    """Workers for any task, with reasoning-gym imported and the given one's verifier made."""
    return WorkerPool(
        score,
        num_workers=min(4, os.cpu_count() or 1),
        timeout_s=TIME_LIMIT_S,
        memory_mb=2048,
        warm_up=(dataset, parameters, "", {"question": "", "answer": "", "metadata": {}}),
        on_timeout=Verdict(False, f"took longer than {TIME_LIMIT_S:g} s to verify"),
        on_crash=Verdict(False, "took too much memory to verify"),
    )
