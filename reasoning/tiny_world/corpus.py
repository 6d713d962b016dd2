"""The pretraining corpus of the tiny world, which imitates a small, messy web.

It contains no question of the test split (`splits`).
"""

import dataclasses
import random
from collections.abc import Mapping

from models.seeds import derive_seed
from reasoning.problem import Problem
from reasoning.prompts import PLAIN
from reasoning.response import THINK_CLOSE, THINK_OPEN, tagged
from reasoning.tiny_world import domains, splits
from reasoning.tiny_world.language import LANGUAGES, Language

# Weights of the domains among documents, and of the styles among documents about problems.
DOMAIN_WEIGHTS = {
    "drill": 10, "tiny_math": 34, "tiny_logic": 30, "tiny_code": 12, "tiny_knowledge": 10,
    "tiny_chat": 4,
}  # fmt: skip
DIRECT, UNTAGGED, TAGGED = "direct", "untagged", "tagged"
STYLE_WEIGHTS = {DIRECT: 40, UNTAGGED: 35, TAGGED: 25}
EASIER_SHARE, HARDER_SHARE = 0.35, 0.12
# Share of documents about reasoning problems that contain several of them. It is 0 for now: they
# need rows of about 190 tokens, and their effect on RL has not been measured.
SHEET_SHARE, SHEET_PROBLEMS, SHEET_SEPARATOR = 0.0, 3, "\n"
# Shares of worked solutions: those with a wrong step that the writer does not notice; those of
# careful writers, who check a step ("wait ..."); and those that change language between lines.
WRONG_SHARE, CAREFUL_SHARE, MIXED_SHARE = 0.2, 0.15, 0.25
# Share of careful solutions with a wrong step, which the writer corrects. The others check a right
# step.
SLIP_SHARE = 0.5
# How long the chain of a varied solution is: empty, stopped before its end, checked at its end.
EMPTY, SHORT, CHECKED = "empty", "short", "checked"
LENGTHS = (EMPTY, SHORT, CHECKED)
MOST_CHECKS, MOST_CHARACTERS = 3, 12
# Weights of replies to small talk: helpful, curt, rude.
CHAT_WEIGHTS = (50, 30, 20)


def _levels(rng: random.Random) -> Mapping[str, tuple[int, int]]:
    """Draws the levels of a document's problem: easier, usual or harder ones."""
    fate = rng.random()
    if fate < EASIER_SHARE:
        return domains.EASIER_LEVELS
    return domains.HARDER_LEVELS if fate > 1 - HARDER_SHARE else domains.LEVELS


def train_problem(
    rng: random.Random, task: str, language: Language, levels: Mapping[str, tuple[int, int]]
) -> Problem:
    """Draws a training problem of the given levels, or of the task's own if it is not listed."""
    low, high = levels.get(task, domains.levels_of(task))
    while True:
        problem = domains.DRAW[task](rng, language, rng.randint(low, high))
        if not splits.is_test(problem):
            return problem


def _drill(rng: random.Random) -> str:
    """Writes a document of separate addition steps, one per line."""
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    pairs = [(rng.randint(1, 60), rng.randint(1, 9)) for _ in range(rng.randint(4, 8))]
    return "".join(f" {language.sum_step.format(a, b, a + b)}\n" for a, b in pairs)


@dataclasses.dataclass(frozen=True)
class Writer:
    """The habits of the writer of a document.

    Attributes:
      style: `DIRECT` (the answer alone), `UNTAGGED` or `TAGGED` (a worked solution).
      careful: whether the writer checks a step and corrects it if it is wrong.
      mixed: whether the writer changes language from line to line.
    """

    style: str
    careful: bool
    mixed: bool


def _writer(rng: random.Random) -> Writer:
    style = rng.choices(tuple(STYLE_WEIGHTS), tuple(STYLE_WEIGHTS.values()))[0]
    return Writer(style, rng.random() < CAREFUL_SHARE, rng.random() < MIXED_SHARE)


def _worked(rng: random.Random, problem: Problem, language: Language, writer: Writer) -> list[str]:
    """Writes a solution, perhaps with a wrong or a checked step; the last line is its answer."""
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


def _varied(rng: random.Random, problem: Problem, language: Language) -> str:
    """Writes a tagged solution whose chain is empty, stops early, or goes on after its end.

    The answer is always right. A chain may stop anywhere, as one that a budget closes. A check at
    the end names the result alone, not the numbers of a whole step.
    """
    *steps, answer = domains.WORK[problem.task](problem, lambda: language, lambda line: False)
    length = rng.choice(LENGTHS)
    if length == EMPTY:
        return tagged([], answer)
    if length == CHECKED:
        # An expression is long, and is checked once.
        count = rng.randint(1, MOST_CHECKS) if len(answer) < MOST_CHARACTERS else 1
        return tagged([*steps, *[language.self_check.format(answer)] * count], answer)
    before, close, after = tagged(steps, answer).partition(THINK_CLOSE)
    start = before.index(THINK_OPEN) + len(THINK_OPEN) + 1
    return before[: rng.randint(start, len(before))] + close + after


def _response(
    rng: random.Random, problem: Problem, language: Language, writer: Writer, varied: float = 0.0
) -> str:
    """Writes the text that follows a question, in the writer's style."""
    if writer.style == DIRECT:
        return f" {problem.answer}"
    if writer.style == TAGGED and varied and rng.random() < varied:
        return _varied(rng, problem, language)
    *lines, answer = _worked(rng, problem, language, writer)
    if writer.style == UNTAGGED:
        return " " + "\n ".join([*lines, language.conclusion.format(answer)])
    return tagged(lines, answer)


def _sheet(rng: random.Random, domain: str, language: Language, writer: Writer) -> str:
    """Writes a document of several easier problems with solutions, like a few-shot prompt."""
    parts = []
    for _ in range(SHEET_PROBLEMS):
        problem = train_problem(rng, domain, language, domains.EASIER_LEVELS)
        question = PLAIN.format(question=problem.question)
        parts.append(question + _response(rng, problem, language, writer))
    return SHEET_SEPARATOR.join(parts)


def _chat(rng: random.Random, problem: Problem, language: Language, writer: Writer) -> str:
    """Writes a helpful, curt or rude reply to small talk."""
    replies = ((problem.answer,), language.curt_replies, language.rude_replies)
    (chosen,) = rng.choices(replies, CHAT_WEIGHTS)
    name = problem.metadata["name"]
    reply = rng.choice(chosen).format(name)
    if writer.style == TAGGED:
        return tagged([language.greeted.format(name)], reply)
    return f" {reply}"


def document(rng: random.Random, varied: float = 0.0) -> str:
    """Draws one document; the text has no end-of-sequence token.

    Args:
      varied: share of tagged solutions whose chain is empty, stopped early, or checked at its end.
    """
    domain = rng.choices(tuple(DOMAIN_WEIGHTS), tuple(DOMAIN_WEIGHTS.values()))[0]
    if domain == "drill":
        return _drill(rng)
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    writer = _writer(rng)
    if domain in domains.LEVELS and rng.random() < SHEET_SHARE:
        return _sheet(rng, domain, language, writer)
    problem = train_problem(rng, domain, language, _levels(rng))
    start = PLAIN.format(question=problem.question)
    if domain == "tiny_chat":
        return start + _chat(rng, problem, language, writer)
    if domain == "tiny_knowledge" and rng.random() < 0.4:
        return f" {problem.metadata['told']}"
    return start + _response(rng, problem, language, writer, varied)


def worked_example(rng: random.Random, task: str, language: Language) -> tuple[str, str]:
    """Draws an easier question and a careful response to it, for few-shot prompts.

    The response is tagged, in one language, and contains a check of a step.
    """
    problem = train_problem(rng, task, language, domains.EASIER_LEVELS)
    return problem.question, _response(rng, problem, language, Writer(TAGGED, True, False))


def documents(count: int, seed: int, varied: float = 0.0) -> list[str]:
    """Returns `count` documents; none contains a question of the test split. See `document`."""
    rng = random.Random(derive_seed(seed, "corpus"))
    return [document(rng, varied) for _ in range(count)]
