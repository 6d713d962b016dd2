"""Tasks by name: where problems come from, and how an answer to one is verified.

A task is named by a spec, `name[:argument][?key=value&key=value...]`:

    gsm8k                          GSM8K through TFDS (`?data_dir=DIR`)
    math500:FILE                   MATH-500, a JSON file
    jsonl:FILE                     your own problems (`?test=FILE`)
    rg:chain_sum?min_terms=3       any reasoning-gym task, with its parameters
    tiny_math, tiny_logic, ...     the domains of the tiny world

Tasks with mathematical answers also take the switches of `GradingOptions`, as in
`math500:FILE?units=required`.

To add one, write a subclass of `Task` and name it in `TASKS`.
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

# Name -> module:class. Modules are imported when asked for: some are heavy.
TASKS = {
    "gsm8k": "reasoning.tasks.gsm8k:Gsm8k",
    "math500": "reasoning.tasks.math500:Math500",
    "jsonl": "reasoning.tasks.jsonl:Jsonl",
    "rg": "reasoning.tasks.reasoning_gym_task:ReasoningGymTask",
    "tiny_math": "reasoning.tasks.tiny:TinyMath",
    "tiny_logic": "reasoning.tasks.tiny:TinyLogic",
    "tiny_code": "reasoning.tasks.tiny:TinyCode",
    "tiny_knowledge": "reasoning.tasks.tiny:TinyKnowledge",
    "tiny_chat": "reasoning.tasks.tiny:TinyChat",
}

# Beginning of the names of tasks whose texts are made of few words -> module:lists of these words
# by language. They tell languages apart that share a script.
VOCABULARIES = {"tiny_": "reasoning.tiny_world.language:SOLUTION_WORDS"}


class Task(abc.ABC):
    """A source of problems, and their verifier.

    Constructing one is cheap: data are read when problems are asked for, so that a task can verify
    answers where its data are absent.

    Attributes:
        name: The spec it was made from; `Problem.task` of its problems.
        figure: What the mean of `score` is called in reports.
        evaluated_whole: An evaluation takes all of its test problems, which are few.
        plants_errors: Whether it has `planted_errors`.
    """

    figure = "pass@1"
    evaluated_whole = False
    plants_errors = False

    def __init__(self, name: str):
        self.name = name

    @abc.abstractmethod
    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws problems; the same arguments give the same problems.

        Args:
            split: "train" or "test". No problem is in both.
            count: How many; None for all in their order (not for tasks that generate problems).
            seed: Which.

        Raises:
            ValueError: If there is no such split, or it has fewer problems.
            FileNotFoundError: If the data are not there.
        """

    def files(self) -> list[str]:
        """The user's files that problems are read from, whose content may change."""
        return []

    def extract(self, response: str) -> str | None:
        """The final answer in a response, tagged or not; None where there is none.

        `reasoning.mathematics.answers.extract_answer`, unless the task's answers look different.
        """
        return extract_answer(response)

    def verify(self, problem: Problem, answer: str) -> Verdict:
        """Whether the answer (the final answer only, not the whole response) is correct."""
        return self.verify_all([problem], [answer])[0]

    @abc.abstractmethod
    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """`verify` for many at once, which may use several processor cores."""

    def score(self, problem: Problem, answer: str, verdict: Verdict) -> float:
        """What an answer counts in an evaluation, from 0 to 1."""
        return float(verdict.correct)

    def planted_errors(
        self, problems: Sequence[Problem], rng: random.Random
    ) -> list[WorkedSolution]:
        """A worked solution of each problem, some with an error at a known step.

        They measure whether a verifier finds the first wrong step.

        Raises:
            ValueError: The task has no worked solutions.
        """
        raise ValueError(f"task {self.name!r} has no worked solutions to plant errors in")

    def group_answers(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """For each problem's answers, which of them mean the same; for votes.

        Answers mean the same here if they are the same words; tasks that know better say so. The
        problems' references are not looked at.

        Returns:
            For each answer the index of the first one like it, among those of its problem.
        """
        groups = []
        for of_problem in answers:
            words = [" ".join(answer.casefold().split()).rstrip(".!?") for answer in of_problem]
            groups.append([words.index(each) for each in words])
        return groups


def get_task(spec: str) -> Task:
    """The task a spec names.

    Raises:
        ValueError: If there is no such task, or it has no such parameter.
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
    try:
        if "grading" in signature.parameters:
            switches = {field.name for field in dataclasses.fields(GradingOptions)}
            chosen = {key: parameters.pop(key) for key in switches & parameters.keys()}
            parameters["grading"] = GradingOptions(**chosen)
        signature.bind(spec, *arguments, **parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"task {spec!r}: {error}") from None
    return factory(spec, *arguments, **parameters)


@functools.lru_cache(maxsize=1024)
def vocabularies_of(spec: str) -> Mapping[str, frozenset[str]] | None:
    """The word lists of a task by language, in lower case; None where it has none."""
    for beginning, place in VOCABULARIES.items():
        if spec.startswith(beginning):
            module, _, name = place.partition(":")
            return getattr(importlib.import_module(module), name)
    return None


def _parameter(spec: str, item: str) -> tuple[str, Any]:
    key, sign, value = item.partition("=")
    if not sign or not key.isidentifier():
        raise ValueError(f"task {spec!r}: {item!r} is no parameter; write key=value, joined by &")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def draw(problems: Sequence[Problem], count: int | None, seed: int, source: str) -> list[Problem]:
    """A random sample without repetition, or all; for tasks with a fixed set of problems."""
    if count is None:
        return list(problems)
    if not 0 < count <= len(problems):
        raise ValueError(f"{source} has {len(problems)} problems, {count} were asked for")
    return random.Random(seed).sample(problems, count)
