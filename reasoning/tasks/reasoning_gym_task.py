"""Procedural problems of reasoning-gym (arXiv:2505.24760), each with its own verifier.

Some of its verifiers evaluate the model's answer as Python (`eval`, SymPy's `parse_expr`). They get
only answers that pass a guard in this module, which accepts nothing but literals or formulas; a
task that evaluates answers and has no guard is refused. Some other verifiers accept wrong answers;
they get a guard too, or are replaced.

Some verifiers also evaluate the entry that the problem was made from, so an entry must never come
from outside. A problem carries only the two numbers that it was made from, and the generator makes
the entry again from them. That happens in worker processes under hard limits on time and memory, as
do guarding and verifying.
"""

import ast
import functools
import hashlib
import inspect
import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from reasoning.mathematics.verifier import verify_math_all
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task
from reasoning.workers.pool import WorkerPool

# Seconds on the clock for one verdict, and the most characters of an answer.
TIME_LIMIT_S = 1.2
MAX_ANSWER_LENGTH = 10_000
# Seconds on the clock for a verdict in tasks that are slow to make an entry again, and for making a
# batch of problems.
SLOW_TIME_LIMIT_S = 10.0
GENERATION_LIMIT_S = 600.0
# All batches of problems have one size, because some tasks' problems depend on the size.
_BATCH = 64
# One question in this many is a test question, by a hash of its text.
_TEST_ONE_IN = 8

_FUNCTIONS = (
    "sin cos tan cot sec csc sinh cosh tanh asin acos atan asinh acosh atanh exp log ln sqrt Abs pi"
)
# Nested repetition is possessive, so that every text takes linear time.
_FORMULA = re.compile(
    rf"(?:\s|[-+*/^()]|\d++(?:\.\d*+)?|(?<![A-Za-z])(?:{'|'.join(_FUNCTIONS.split())}|[A-Za-z])"
    r"(?![A-Za-z_]))*+"
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
    # The verifier only counts the numbers, so it would accept 6*4*1*1 for any task with result 24.
    # Numbers are compared as text, because Python refuses to read one of many thousand digits.
    used = sorted(number.lstrip("0") for number in re.findall(r"\d+", answer))
    given = sorted(str(number).lstrip("0") for number in entry["metadata"]["numbers"])
    return _is_arithmetic(answer, entry) and used == given


def _is_fraction(answer: str, entry: dict[str, Any]) -> bool:
    # The verifier takes the first fraction that it finds and ignores all other text.
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


# Tasks whose verifiers evaluate the answer, each with the guard that an answer must pass.
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
# The verifiers of these tasks accept any text, or the first number in it, so answers are compared
# with the reference instead.
BY_REFERENCE = frozenset({"game_of_life_halting", "gsm_symbolic"})
# These verifiers evaluate only the reference answer or the question, which reasoning-gym made.
_EVALUATES_OWN_TEXT = frozenset({"number_sorting"})
_EVALUATION = re.compile(r"(?<![\w.])(?:eval|exec)\(|\b(?:parse_expr|sympify)\(")


class ReasoningGymTask(Task):
    """One reasoning-gym task. No question is in both the training and the test problems.

    Args:
      name: the spec.
      dataset: reasoning-gym's name of the task, such as "chain_sum".
      **parameters: fields of its config, such as `min_terms`.

    Raises:
      ValueError: there is no such task or parameter, or its verifier is unsafe.
    """

    def __init__(self, name: str, dataset: str = "", **parameters: Any):
        super().__init__(name)
        self._dataset, self._parameters = dataset, tuple(sorted(parameters.items()))
        import reasoning_gym  # noqa: F401  The import takes seconds that `start` must not count.

        start = time.perf_counter()
        made = _create(dataset, self._parameters, size=4, seed=0)  # raises on bad parameters
        for i in range(len(made)):
            made[i]
        # Some tasks load fonts or dictionaries, or search long for a problem, which takes more than
        # the time limit of a verdict.
        self._is_slow = time.perf_counter() - start > TIME_LIMIT_S / 10
        _refuse_unsafe(dataset)

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Generates problems; see `Task.problems`. `count` must be given."""
        if split not in ("train", "test"):
            raise ValueError(f"{self.name} has the splits train and test, not {split!r}")
        if count is None or count < 1:
            raise ValueError(f"{self.name} makes problems without end: give a count")
        problems: list[Problem] = []
        # One problem in _TEST_ONE_IN is a test problem, if questions do not repeat much.
        for batch in range(20 + 4 * _TEST_ONE_IN * count // _BATCH):
            digest = hashlib.blake2b(f"{seed} {batch}".encode(), digest_size=4).digest()
            batch_seed = int.from_bytes(digest, "little")
            missing = count - len(problems)
            made = _generating_pool()(
                self._dataset, self._parameters, batch_seed, split == "test", missing
            )
            if isinstance(made, str):
                raise ValueError(f"{self.name}: {made}")
            problems += [
                Problem(self.name, question, answer, {"seed": batch_seed, "index": index})
                for index, question, answer in made
            ]
            if len(problems) == count:
                return problems
        raise ValueError(
            f"{self.name} has too few different questions for {count} {split} problems: widen its"
            " parameters"
        )

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Verifies answers in worker processes, which make the entry of each problem again.

        Raises:
          ValueError: a problem lacks the numbers that it was made from, or they give another
            question.
        """
        if self._dataset in BY_REFERENCE:
            pairs = zip(problems, answers, strict=True)
            return verify_math_all([(problem.answer, answer) for problem, answer in pairs])
        verdicts: dict[int, Verdict] = {}
        calls = {}
        for i, (problem, answer) in enumerate(zip(problems, answers, strict=True)):
            source, answer = self._source(problem), answer.strip()
            if len(answer) > MAX_ANSWER_LENGTH:
                reason = f"{len(answer)} characters, more than {MAX_ANSWER_LENGTH}"
                verdicts[i] = Verdict(False, reason)
            else:
                calls[i] = (self._dataset, self._parameters, *source, problem.question, answer)
        if calls:
            pool = _scoring_pool(
                *((self._dataset, self._parameters) if self._is_slow else _QUICK_EXAMPLE),
                SLOW_TIME_LIMIT_S if self._is_slow else TIME_LIMIT_S,
            )
            for i, result in zip(calls, pool.map(calls.values())):
                if result is None:
                    raise ValueError(
                        f"{self.name}: seed and index of a problem give another question than"
                        f" {problems[i].question[:80]!r}: another version of reasoning-gym or other"
                        " parameters made it; generate the problems again"
                    )
                verdicts[i] = Verdict(*result)
        return [verdicts[i] for i in range(len(problems))]

    def _source(self, problem):
        """Returns the numbers that the problem was made from: seed and index."""
        seed, index = (problem.metadata.get(name) for name in ("seed", "index"))
        if type(seed) is type(index) is int and 0 <= seed < 2**32 and 0 <= index < _BATCH:
            return seed, index
        raise ValueError(
            f"{self.name}: a record needs the metadata that its problem came with,"
            ' {"seed": ..., "index": ...}, from which the problem is made again; an entry from'
            " a file is not trusted"
        )


def generate(
    dataset: str, parameters: Iterable[Sequence[Any]], seed: int, of_test: bool, most: int
) -> list[list[Any]] | str:
    """Makes the problems of a batch that are in a split. Runs in a worker.

    Args:
      dataset, parameters: the task; parameters are pairs.
      seed: the seed of the batch.
      of_test: whether to return the test split, not the training split.
      most: the number of problems that are enough.

    Returns:
      A list of [index, question, answer]; if the generator fails, a sentence that says why.
    """
    made = []
    try:
        generator = _create(dataset, parameters, _BATCH, seed)
        for index in range(len(generator)):
            entry = generator[index]
            if _is_test(entry["question"]) == of_test:
                # Tasks with many right answers have no reference.
                made.append([index, entry["question"], entry["answer"] or ""])
                if len(made) == most:
                    break
    except Exception as error:  # Generators raise any kind of error on odd parameters.
        return f"the generator cannot make problems: {type(error).__name__}: {error}"
    return made


def score(
    dataset: str,
    parameters: Iterable[Sequence[Any]],
    seed: int,
    index: int,
    question: str,
    answer: str,
) -> list[Any] | None:
    """Verifies an answer with reasoning-gym's verifier. Runs in a worker.

    Args:
      dataset, parameters: the task; parameters are pairs.
      seed, index: the numbers that the problem was made from.
      question: the question, perhaps inside a prompt; "" if it is unknown.
      answer: the model's answer, which is hostile.

    Returns:
      [correct, reason], or None if the numbers give another question.
    """
    verifier = _generator(dataset, tuple(map(tuple, parameters)), seed)
    entry = verifier[index]
    if question and entry["question"].strip() not in question:
        return None
    guard = GUARDS.get(dataset)
    if guard and not guard(answer, entry):
        return [False, "not in the form that the verifier accepts"]
    try:
        value = float(verifier.score_answer(answer, entry))
    except Exception as error:  # Verifiers raise on answers that they did not expect.
        return [False, f"the verifier cannot read the answer: {type(error).__name__}"]
    return [value >= 1.0, f"reasoning-gym scores {value:.3g} of 1"]


@functools.lru_cache(maxsize=16)
def _generator(dataset, parameters, seed):
    return _create(dataset, parameters, _BATCH, seed)


def _create(dataset, parameters, size, seed):
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if dataset not in DATASETS:
        raise ValueError(
            f"reasoning-gym has no task {dataset!r}: write rg:NAME, such as rg:chain_sum (see"
            " reasoning_gym.factory.DATASETS)"
        )
    if {"size", "seed"} & dict(parameters).keys():
        raise ValueError(f"rg:{dataset}: size and seed come from the run: leave them out")
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
            f"rg:{dataset}: its verifier evaluates the model's answer as Python: add a guard for it"
            " to reasoning.tasks.reasoning_gym_task.EVALUATION_GUARDS"
        )


def _is_test(question):
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _TEST_ONE_IN == 0


_QUICK_EXAMPLE = ("chain_sum", ())


@functools.cache
def _scoring_pool(dataset: str, parameters: tuple, limit_s: float) -> WorkerPool:
    """Returns workers for any task, with reasoning-gym and the data of the given task loaded."""
    return WorkerPool(
        score,
        num_workers=min(4, os.cpu_count() or 1),
        timeout_s=limit_s,
        memory_mb=2048,
        warm_up=(dataset, parameters, 0, 0, "", ""),
        on_timeout=[False, f"took longer than {limit_s:g} s to verify"],
        on_crash=[False, "took too much memory to verify"],
    )


@functools.cache
def _generating_pool() -> WorkerPool:
    """Returns a worker that makes problems.

    In some tasks the order of sets decides the problems. It is always the same in workers, so a
    problem that is made again is the same.
    """
    return WorkerPool(
        generate,
        num_workers=1,
        timeout_s=GENERATION_LIMIT_S,
        memory_mb=8192,
        warm_up=(*_QUICK_EXAMPLE, 0, False, 1),
        on_timeout=f"making problems took longer than {GENERATION_LIMIT_S:g} s: ask for fewer",
        on_crash="making problems took too much memory: ask for fewer",
    )
