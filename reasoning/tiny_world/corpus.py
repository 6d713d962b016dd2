"""The pretraining corpus of the tiny world: what a small, messy web has to say about it."""

import dataclasses
import random
from collections.abc import Mapping

from reasoning.problem import Problem
from reasoning.prompts import PLAIN
from reasoning.response import tagged
from reasoning.tiny_world import domains, splits
from reasoning.tiny_world.language import LANGUAGES, Language

# Share of documents by domain, and what a document about a reasoning problem looks like.
DOMAIN_WEIGHTS = {
    "drill": 10, "tiny_math": 34, "tiny_logic": 30, "tiny_code": 12, "tiny_knowledge": 10,
    "tiny_chat": 4,
}  # fmt: skip
DIRECT, UNTAGGED, TAGGED = "direct", "untagged", "tagged"
STYLE_WEIGHTS = {DIRECT: 40, UNTAGGED: 35, TAGGED: 25}
EASIER_SHARE, HARDER_SHARE = 0.35, 0.12
# Of the documents about reasoning problems, those with several. None for now: they need rows of
# about 190 tokens, and how far RL gets from a base model that has read them is not known.
SHEET_SHARE, SHEET_PROBLEMS, SHEET_SEPARATOR = 0.0, 3, "\n"
# Of the worked solutions: those with a step gone wrong that nobody notices; those of careful
# writers, who check ("wait ...") and notice; and those that change language from line to line.
WRONG_SHARE, CAREFUL_SHARE, MIXED_SHARE = 0.2, 0.15, 0.25
# Of the careful: those with a step gone wrong (and noticed). The others check a line that is right.
SLIP_SHARE = 0.5
# Replies to small talk: helpful, curt, rude.
CHAT_WEIGHTS = (50, 30, 20)


def _levels(rng: random.Random) -> Mapping[str, tuple[int, int]]:
    """Which levels a document is of."""
    fate = rng.random()
    if fate < EASIER_SHARE:
        return domains.EASIER_LEVELS
    return domains.HARDER_LEVELS if fate > 1 - HARDER_SHARE else domains.LEVELS


def _train_problem(
    rng: random.Random, task: str, language: Language, levels: Mapping[str, tuple[int, int]]
) -> Problem:
    """A problem of the levels given; of the task's own where it has none of these."""
    low, high = levels.get(task, domains.levels_of(task))
    while True:
        problem = domains.DRAW[task](rng, language, rng.randint(low, high))
        if not splits.is_test(problem):
            return problem


def _drill(rng: random.Random) -> str:
    """Single steps, one a line."""
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    pairs = [(rng.randint(1, 60), rng.randint(1, 9)) for _ in range(rng.randint(4, 8))]
    return "".join(f" {language.sum_step.format(a, b, a + b)}\n" for a, b in pairs)


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who wrote a document, and how.

    Attributes:
      careful: checks a step, and never leaves one that went wrong.
      mixed: changes language from line to line.
    """

    style: str
    careful: bool
    mixed: bool


def _writer(rng: random.Random) -> Writer:
    style = rng.choices(tuple(STYLE_WEIGHTS), STYLE_WEIGHTS.values())[0]
    return Writer(style, rng.random() < CAREFUL_SHARE, rng.random() < MIXED_SHARE)


def _worked(
    rng: random.Random, problem: Problem, language: Language, writer: Writer
) -> list[str]:
    """Lines of a solution as the web has them; the last one is the answer it arrives at."""
    languages = tuple(LANGUAGES.values()) if writer.mixed else (language,)

    def speak():
        return rng.choice(languages)

    right = domains.WORK[problem.task](problem, speak, lambda line: False)
    chosen = rng.randrange(len(right) - 1)
    wrong = domains.WORK[problem.task](problem, speak, lambda line: line == chosen)
    if writer.careful:
        first = (wrong if rng.random() < SLIP_SHARE else right)[chosen]
        check = speak().self_check.format(right[chosen])
        return [*right[:chosen], first, check, *right[chosen + 1 :]]
    return wrong if rng.random() < WRONG_SHARE / (1 - CAREFUL_SHARE) else right


def _response(rng: random.Random, problem: Problem, language: Language, writer: Writer) -> str:
    """What stands behind the question."""
    if writer.style == DIRECT:
        return f" {problem.answer}"
    *lines, answer = _worked(rng, problem, language, writer)
    if writer.style == UNTAGGED:
        return " " + "\n ".join([*lines, language.conclusion.format(answer)])
    return tagged(lines, answer)


def _sheet(rng: random.Random, domain: str, language: Language, writer: Writer) -> str:
    """Several easier problems, solved by one writer; what a few-shot prompt looks like."""
    parts = []
    for _ in range(SHEET_PROBLEMS):
        problem = _train_problem(rng, domain, language, domains.EASIER_LEVELS)
        question = PLAIN.format(question=problem.question)
        parts.append(question + _response(rng, problem, language, writer))
    return SHEET_SEPARATOR.join(parts)


def _chat(rng: random.Random, problem: Problem, language: Language, writer: Writer) -> str:
    replies = ((problem.answer,), language.curt_replies, language.rude_replies)
    (chosen,) = rng.choices(replies, CHAT_WEIGHTS)
    name = problem.metadata["name"]
    reply = rng.choice(chosen).format(name)
    if writer.style == TAGGED:
        return tagged([language.greeted.format(name)], reply)
    return f" {reply}"


def document(rng: random.Random) -> str:
    """One document, without its end-of-sequence token."""
    domain = rng.choices(tuple(DOMAIN_WEIGHTS), DOMAIN_WEIGHTS.values())[0]
    if domain == "drill":
        return _drill(rng)
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    writer = _writer(rng)
    if domain in domains.LEVELS and rng.random() < SHEET_SHARE:
        return _sheet(rng, domain, language, writer)
    problem = _train_problem(rng, domain, language, _levels(rng))
    start = PLAIN.format(question=problem.question)
    if domain == "tiny_chat":
        return start + _chat(rng, problem, language, writer)
    if domain == "tiny_knowledge" and rng.random() < 0.4:
        return f" {problem.metadata['told']}"
    return start + _response(rng, problem, language, writer)


def worked_example(rng: random.Random, task: str, language: Language) -> tuple[str, str]:
    """An easier problem and its response as a careful writer in one language would give it.

    Tagged, with a check; for few-shot prompts.
    """
    problem = _train_problem(rng, task, language, domains.EASIER_LEVELS)
    return problem.question, _response(rng, problem, language, Writer(TAGGED, True, False))


def documents(count: int, seed: int) -> list[str]:
    """`count` documents. None asks about a problem of the test split."""
    rng = random.Random(f"corpus {seed}")
    return [document(rng) for _ in range(count)]
