"""Makes worked solutions of tiny-world problems with an error at a known step.

`reasoning.verifiers.process_bench` uses them to measure whether a verifier finds the error.
"""

import dataclasses
import random
from collections.abc import Sequence

from reasoning.problem import Problem, WorkedSolution
from reasoning.tiny_world import domains
from reasoning.tiny_world.language import LANGUAGES

SLIP, OMISSION = "slip", "omission"
# Domain -> the metadata field whose entries a solution may leave out, which makes it wrong.
OMITTED = {"tiny_math": "terms", "tiny_code": "operations"}


def planted_errors(
    domain: str, problems: Sequence[Problem], rng: random.Random
) -> list[WorkedSolution]:
    """Returns one worked solution of each problem; every other one has an error.

    The errors alternate between a slip in one step and an omission of one given item, if the domain
    allows omissions. Later steps build on the error, as a student's would. The language of each
    line is drawn separately.

    Args:
      domain: the domain of the problems, such as "tiny_math".
      problems: the problems.
      rng: the source of all random choices.
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
    """Writes a worked solution, perhaps with a slip at one line; the last line answers.

    `rng` chooses the language of each line; without it, all lines are in the same language.
    """
    languages = tuple(LANGUAGES.values())

    def speak():
        return rng.choice(languages) if rng else languages[0]

    return domains.WORK[domain](problem, speak, lambda line: line == slip)


def _with_omission(problem: Problem, domain: str, rng: random.Random) -> tuple[list[str], int]:
    """Returns a solution that leaves out one given item, and the index of its first wrong line.

    That line uses the next item instead. If the last item is left out, it is the answer.
    """
    given = problem.metadata[OMITTED[domain]]
    out = rng.randrange(len(given))
    shorter = {OMITTED[domain]: given[:out] + given[out + 1 :]}
    reduced = dataclasses.replace(problem, metadata={**problem.metadata, **shorter})
    pairs = zip(_lines(problem, domain, None), _lines(reduced, domain, None))
    wrong = next(i for i, (right, other) in enumerate(pairs) if right != other)
    return _lines(reduced, domain, rng), wrong
