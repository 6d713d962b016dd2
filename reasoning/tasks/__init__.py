"""Defines tasks by name: where problems come from, and how their answers are verified.

A spec names a task: `name[:argument][?key=value&key=value...]`.

    gsm8k                          GSM8K through TFDS (`?data_dir=DIR`)
    math500:FILE                   MATH-500, a JSON file
    jsonl:FILE                     your own problems (`?test=FILE`)
    rg:chain_sum?min_terms=3       any reasoning-gym task, with its parameters
    facts, small_talk              probes of what training may destroy
    tiny_math, tiny_logic, ...     the domains of the tiny world

Every task takes `?budget=N`, which names the most tokens of a response in its questions (0: no
chain). Tasks with mathematical answers also take the switches of `GradingOptions`, as in
`math500:FILE?units=required`.

To add a task, write a subclass of `Task` and register it in `TASKS`.
"""

import abc
import dataclasses
import functools
import importlib
import inspect
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning.mathematics.answers import extract_answer
from reasoning.mathematics.options import GradingOptions
from reasoning.problem import Problem, Verdict, WorkedSolution

# Name -> module:class. A module is imported only when its task is used, because some are heavy.
TASKS = {
    "gsm8k": "reasoning.tasks.gsm8k:Gsm8k",
    "math500": "reasoning.tasks.math500:Math500",
    "jsonl": "reasoning.tasks.jsonl:Jsonl",
    "rg": "reasoning.tasks.reasoning_gym_task:ReasoningGymTask",
    "facts": "reasoning.tasks.probes:Facts",
    "small_talk": "reasoning.tasks.probes:SmallTalk",
    "tiny_math": "reasoning.tasks.tiny:TinyMath",
    "tiny_logic": "reasoning.tasks.tiny:TinyLogic",
    "tiny_code": "reasoning.tasks.tiny:TinyCode",
    "tiny_countdown": "reasoning.tasks.tiny:TinyCountdown",
    "tiny_knowledge": "reasoning.tasks.tiny:TinyKnowledge",
    "tiny_chat": "reasoning.tasks.tiny:TinyChat",
}

# Start of a task's name -> module:word lists by language, for tasks whose texts have few words.
# Word lists separate languages that share a script.
VOCABULARIES = {"tiny_": "reasoning.tiny_world.language:SOLUTION_WORDS"}


class Task(abc.ABC):
    """A source of problems and their verifier.

    Creating a task is cheap: it reads data only when problems are requested, so it can verify
    answers without its data.

    Attributes:
      name: the spec that it was made from; its problems carry it in `Problem.task`.
      figure: what reports call the mean of `score`.
      evaluated_whole: whether an evaluation takes all of its test problems, which are few.
      plants_errors: whether it has `planted_errors`.
    """

    figure = "pass@1"
    evaluated_whole = False
    plants_errors = False

    def __init__(self, name: str):
        self.name = name

    @abc.abstractmethod
    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws problems. The same arguments give the same problems.

        Args:
          split: "train" or "test". No problem is in both.
          count: the number of problems; None for all of them in order (not for tasks that generate
            problems).
          seed: decides which problems are drawn.

        Raises:
          ValueError: there is no such split, or it has fewer problems.
          FileNotFoundError: the data are missing.
        """

    def files(self) -> list[str]:
        """Returns the user's files that problems are read from, whose content may change."""
        return []

    def extract(self, response: str) -> str | None:
        """Returns the final answer in a response, tagged or not; None if there is none.

        This is `reasoning.mathematics.answers.extract_answer`, unless the task's answers look
        different.
        """
        return extract_answer(response)

    def verify(self, problem: Problem, answer: str) -> Verdict:
        """Verifies an answer: the final answer only, not the whole response."""
        return self.verify_all([problem], [answer])[0]

    @abc.abstractmethod
    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Verifies many answers at once, like `verify`. It may use several processor cores."""

    def score(self, problem: Problem, answer: str, verdict: Verdict) -> float:
        """Returns how much an answer counts in an evaluation, from 0 to 1."""
        return float(verdict.correct)

    def worked_solution(self, problem: Problem) -> tuple[list[str], str] | None:
        """Returns the steps of the solution that comes with a problem, and its answer, or None."""
        del problem
        return None

    def planted_errors(
        self, problems: Sequence[Problem], rng: random.Random
    ) -> list[WorkedSolution]:
        """Returns a worked solution of each problem, some with an error at a known step.

        They measure whether a verifier finds the first wrong step.

        Raises:
          ValueError: the task has no worked solutions.
        """
        raise ValueError(f"task {self.name!r} has no worked solutions to plant errors in")

    def group_answers(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """Groups the answers to each problem by meaning, for votes.

        By default, answers mean the same if they have the same words; a task may know better. The
        references of the problems are not used.

        Returns:
          For each answer, the index of the first answer to its problem that means the same.
        """
        groups = []
        for of_problem in answers:
            words = [" ".join(answer.casefold().split()).rstrip(".!?") for answer in of_problem]
            groups.append([words.index(each) for each in words])
        return groups


def get_task(spec: str) -> Task:
    """Returns the task that a spec names.

    Raises:
      ValueError: there is no such task, or it has no such parameter.
    """
    head, _, query = spec.partition("?")
    name, _, argument = head.partition(":")
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r} in {spec!r}; choose from {', '.join(TASKS)}")
    module, _, class_name = TASKS[name].partition(":")
    factory = getattr(importlib.import_module(module), class_name)
    arguments = [argument] if argument else []
    parameters = dict(_parameter(spec, item) for item in query.split("&") if item)
    signature = inspect.signature(factory)
    budget = parameters.pop("budget", None)
    try:
        if "grading" in signature.parameters:
            switches = {field.name for field in dataclasses.fields(GradingOptions)}
            chosen = {key: parameters.pop(key) for key in switches & parameters.keys()}
            parameters["grading"] = GradingOptions(**chosen)
        signature.bind(spec, *arguments, **parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"task {spec!r}: {error}") from None
    task = factory(spec, *arguments, **parameters)
    if budget is None:
        return task
    from reasoning.tasks.budgets import BudgetTask

    return BudgetTask(task, budget)


@functools.lru_cache(maxsize=1024)
def vocabularies_of(spec: str) -> Mapping[str, frozenset[str]] | None:
    """Returns the word lists of a task by language, in lower case; None if it has none."""
    for beginning, place in VOCABULARIES.items():
        if spec.startswith(beginning):
            module, _, name = place.partition(":")
            return getattr(importlib.import_module(module), name)
    return None


def _parameter(spec: str, item: str) -> tuple[str, Any]:
    key, sign, value = item.partition("=")
    if not sign or not key.isidentifier():
        raise ValueError(f"task {spec!r}: {item!r} is no parameter: write key=value, joined by &")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def draw(problems: Sequence[Problem], count: int | None, seed: int, source: str) -> list[Problem]:
    """Draws problems without repetition, or returns all; for tasks with a fixed set of problems.

    Args:
      problems: the whole set.
      count: the number to draw; None for all of them in order.
      seed: decides which problems are drawn.
      source: what an error calls the set.

    Raises:
      ValueError: there are fewer problems.
    """
    if count is None:
        return list(problems)
    if not 0 < count <= len(problems):
        raise ValueError(f"{source} has {len(problems)} problems, but {count} are requested")
    return random.Random(seed).sample(problems, count)
