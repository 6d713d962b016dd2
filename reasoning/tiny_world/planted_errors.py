"""Worked solutions of the tiny world with an error at a known step."""

import dataclasses
import random
from collections.abc import Sequence

from reasoning.problem import Problem, WorkedSolution
from reasoning.tiny_world import domains
from reasoning.tiny_world.language import LANGUAGES

SLIP, OMISSION = "slip", "omission"
# What a solution may leave out so that it goes wrong, in the metadata of a domain's problems.
OMITTED = {"tiny_math": "terms", "tiny_code": "operations"}


def planted_errors(
    domain: str, problems: Sequence[Problem], rng: random.Random
) -> list[WorkedSolution]:
    """One worked solution of each problem, every other one with an error.

    By turns a step has a slip, and the solution leaves something out, where the domain has what can
    be left out. Either is carried on, as a student's would be: later steps are right given the
    wrong one. Each line is in a language of its own choice.
    """
    solutions = []
    for i, problem in enumerate(problems):
        kind = wrong = None
        if i % 2 == 0:
            lines = _lines(problem, domain, rng)
        elif i % 4 == 1 or domain not in OMITTED:
            kind, wrong = SLIP, rng.randrange(len(_lines(problem, domain, rng)) - 1)
            lines = _lines(problem, domain, rng, slip=wrong)
        else:
            kind = OMISSION
            lines, wrong = _with_omission(problem, domain, rng)
        *steps, answer = lines
        solutions.append(WorkedSolution(tuple(steps), answer, wrong, kind))
    return solutions


def _lines(
    problem: Problem, domain: str, rng: random.Random | None, slip: int | None = None
) -> list[str]:
    """A worked solution in languages that `rng` chooses, or all in one; the last line answers."""
    languages = tuple(LANGUAGES.values())

    def speak():
        return rng.choice(languages) if rng else languages[0]

    return domains.WORK[domain](problem, speak, lambda line: line == slip)


def _with_omission(
    problem: Problem, domain: str, rng: random.Random
) -> tuple[list[str], int]:
    """A solution that leaves out one of what is given, and its first wrong line.

    That is the line which takes the next thing instead; and the answer, where the last was omitted.
    """
    given = problem.metadata[OMITTED[domain]]
    out = rng.randrange(len(given))
    shorter = {OMITTED[domain]: given[:out] + given[out + 1 :]}
    reduced = dataclasses.replace(problem, metadata=problem.metadata | shorter)
    pairs = zip(_lines(problem, domain, None), _lines(reduced, domain, None))
    wrong = next(i for i, (right, other) in enumerate(pairs) if right != other)
    return _lines(reduced, domain, rng), wrong
