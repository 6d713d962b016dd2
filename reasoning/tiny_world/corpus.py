"""The pretraining corpus of the tiny world: what a small, messy web has to say about it."""

import random

from reasoning.problem import Problem
from reasoning.prompts import PLAIN
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from reasoning.tiny_world import domains, splits
from reasoning.tiny_world.language import LANGUAGES, Language

# Share of documents by domain, and what a document about a reasoning problem looks like.
DOMAIN_WEIGHTS = {
    "drill": 10, "tiny_math": 34, "tiny_logic": 30, "tiny_code": 12, "tiny_knowledge": 10,
    "tiny_chat": 4,
}  # fmt: skip
DIRECT, UNTAGGED, TAGGED = "direct", "untagged", "tagged"
STYLE_WEIGHTS = {DIRECT: 40, UNTAGGED: 35, TAGGED: 25}
EASIER_SHARE = 0.35
# Of the worked solutions: those with a step gone wrong that nobody notices; those of careful
# writers, who check ("wait ...") and notice; and those that change language from line to line.
WRONG_SHARE, CAREFUL_SHARE, MIXED_SHARE = 0.2, 0.15, 0.25
# Of the careful: those with a step gone wrong (and noticed). The others check a line that is right.
SLIP_SHARE = 0.5
# Replies to small talk: helpful, curt, rude.
CHAT_WEIGHTS = (50, 30, 20)


def tagged(lines: list[str], answer: str) -> str:
    """A response in the R1 format, one step a line."""
    chain = "".join(f" {line}\n" for line in lines)
    return f" {THINK_OPEN}\n{chain}{THINK_CLOSE}{ANSWER_OPEN} {answer}{ANSWER_CLOSE}"


def _train_problem(rng: random.Random, task: str, language: Language) -> Problem:
    easier = rng.random() < EASIER_SHARE
    low, high = (domains.EASIER_LEVELS if easier else domains.LEVELS).get(task, (1, 1))
    while True:
        problem = domains.DRAW[task](rng, language, rng.randint(low, high))
        if not splits.is_test(problem):
            return problem


def _drill(rng: random.Random) -> str:
    """Single steps, one a line."""
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    pairs = [(rng.randint(1, 60), rng.randint(1, 9)) for _ in range(rng.randint(4, 8))]
    return "".join(f" {language.sum_step.format(a, b, a + b)}\n" for a, b in pairs)


def _worked(rng: random.Random, problem: Problem, language: Language) -> list[str]:
    """Lines of a solution as the web has them; the last one is the answer it arrives at."""
    mixed = rng.random() < MIXED_SHARE
    languages = tuple(LANGUAGES.values()) if mixed else (language,)

    def speak():
        return rng.choice(languages)

    right = domains.WORK[problem.task](problem, speak, lambda line: False)
    fate = rng.random()
    wrong_line = rng.randrange(len(right) - 1)
    if fate < WRONG_SHARE:
        return domains.WORK[problem.task](problem, speak, lambda line: line == wrong_line)
    if fate > 1 - CAREFUL_SHARE:
        first = right[wrong_line]
        if rng.random() < SLIP_SHARE:
            wrong = domains.WORK[problem.task](problem, speak, lambda line: line == wrong_line)
            first = wrong[wrong_line]
        check = speak().self_check.format(right[wrong_line])
        return [*right[:wrong_line], first, check, *right[wrong_line + 1 :]]
    return right


def document(rng: random.Random) -> str:
    """One document, without its end-of-sequence token."""
    domain = rng.choices(tuple(DOMAIN_WEIGHTS), DOMAIN_WEIGHTS.values())[0]
    if domain == "drill":
        return _drill(rng)
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    problem = _train_problem(rng, domain, language)
    start = PLAIN.format(question=problem.question)
    if domain == "tiny_chat":
        replies = ((problem.answer,), language.curt_replies, language.rude_replies)
        (chosen,) = rng.choices(replies, CHAT_WEIGHTS)
        return f"{start} {rng.choice(chosen).format(problem.metadata['name'])}"
    if domain == "tiny_knowledge" and rng.random() < 0.4:
        return f" {problem.metadata['told']}"
    style = rng.choices(tuple(STYLE_WEIGHTS), STYLE_WEIGHTS.values())[0]
    if style == DIRECT:
        return f"{start} {problem.answer}"
    *lines, answer = _worked(rng, problem, language)
    if style == UNTAGGED:
        return f"{start} " + "\n ".join([*lines, language.conclusion.format(answer)])
    return start + tagged(lines, answer)


def documents(count: int, seed: int) -> list[str]:
    """`count` documents. None asks about a problem of the test split."""
    rng = random.Random(f"corpus {seed}")
    return [document(rng) for _ in range(count)]
