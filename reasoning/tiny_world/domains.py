"""The domains of the tiny world: draws their problems and solves them step by step.

`DRAW` and `WORK` list the functions of each domain. `draw(rng, language, level)` makes a problem.
`work(problem, speak, slip)` solves it, one step per line: `speak()` returns the language of the
next line, and `slip(i)` says whether step i is wrong. Later steps build on a wrong step, as a
student's would. `countdown` has the functions of that domain.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from reasoning.problem import Problem
from reasoning.tiny_world import countdown
from reasoning.tiny_world.language import LANGUAGES, Language

Speak = Callable[[], Language]
Slip = Callable[[int], bool]

NAMES = ("Ann", "Bob", "Cid", "Dan", "Eva", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo")
# Country -> capital and continent; names of countries and capitals are the same in both languages.
COUNTRIES = {
    "Peru": ("Lima", "AM"), "Ghana": ("Accra", "AF"), "Nepal": ("Kathmandu", "AS"),
    "Chile": ("Santiago", "AM"), "Senegal": ("Dakar", "AF"), "Mali": ("Bamako", "AF"),
    "Togo": ("Lome", "AF"), "Angola": ("Luanda", "AF"), "Ecuador": ("Quito", "AM"),
    "Thailand": ("Bangkok", "AS"), "Vietnam": ("Hanoi", "AS"), "Laos": ("Vientiane", "AS"),
    "Uganda": ("Kampala", "AF"), "Liberia": ("Monrovia", "AF"), "Botswana": ("Gaborone", "AF"),
    "Honduras": ("Tegucigalpa", "AM"), "Nicaragua": ("Managua", "AM"), "Bhutan": ("Thimphu", "AS"),
    "Paraguay": ("Asuncion", "AM"), "Uruguay": ("Montevideo", "AM"), "Venezuela": ("Caracas", "AM"),
    "Namibia": ("Windhoek", "AF"), "Burundi": ("Gitega", "AF"), "Gambia": ("Banjul", "AF"),
}  # fmt: skip
VARIABLES = ("a", "b", "c")


def _problem(task: str, question: str, answer: str, language: Language, **metadata: Any) -> Problem:
    """Makes a problem, with its language among the metadata."""
    return Problem(task, question, answer, {"language": language.name, **metadata})


def draw_sum(rng: random.Random, language: Language, level: int) -> Problem:
    """Draws a sum of `level` one-digit numbers."""
    terms = [rng.randint(1, 9) for _ in range(level)]
    question = rng.choice(language.sum_questions).format(" + ".join(map(str, terms)))
    return _problem("tiny_math", question, str(sum(terms)), language, terms=terms, level=level)


def work_sum(problem: Problem, speak: Speak, slip: Slip) -> list[str]:
    """Adds one number per line; a slip writes a wrong partial sum. The last line is the answer."""
    total, *rest = problem.metadata["terms"]
    lines = []
    for i, term in enumerate(rest):
        right, language = total + term, speak()
        # The wrong sum is near the right one and never equal to it.
        wrong = right + (1, -1, 2, 10)[(total + i) % 4]
        if slip(i):
            lines.append(language.sum_step.format(total, term, wrong))
            right = wrong
        else:
            lines.append(language.sum_step.format(total, term, right))
        total = right
    return lines + [str(total)]


def draw_contest(rng: random.Random, language: Language, level: int) -> Problem:
    """Draws a contest with `level` results and asks for the winner or the loser.

    Each result after the first extends the ranking at the top or at the bottom.
    """
    names = iter(rng.sample(NAMES, level + 1))
    ranking, facts = [next(names), next(names)], []
    facts.append(tuple(ranking))
    for name in names:
        if rng.random() < 0.5:
            facts.append((name, ranking[0]))
            ranking.insert(0, name)
        else:
            facts.append((ranking[-1], name))
            ranking.append(name)
    loses = rng.random() < 0.5
    facts_in_words = ", ".join(language.contest_fact.format(*fact) for fact in facts)
    return _problem(
        "tiny_logic",
        f"{facts_in_words}. {language.contest_questions[loses]}",
        ranking[-1 if loses else 0],
        language,
        facts=[list(fact) for fact in facts],
        loses=loses,
        level=level,
    )


def work_contest(problem: Problem, speak: Speak, slip: Slip) -> list[str]:
    """Follows who leads (or trails) after each result; a slip gets that wrong at its line.

    The last line is the answer.
    """
    loses, lines, current = problem.metadata["loses"], [], None
    for i, (winner, loser) in enumerate(problem.metadata["facts"]):
        gains, replaced = (loser, winner) if loses else (winner, loser)
        follows = current is None or current == replaced
        if follows != slip(i):
            current = gains
        elif current is None:
            current = replaced
        lines.append(speak().contest_steps[loses].format(winner, loser, current))
    return lines + [current]


def draw_code(rng: random.Random, language: Language, level: int) -> Problem:
    """Draws a Python expression over a, b and c, described as a start and `level` operations."""
    start = rng.choice(VARIABLES)
    operations = [
        (rng.choice("+-*"), rng.choice((*VARIABLES, *map(str, range(2, 10))))) for _ in range(level)
    ]
    operations_in_words = ", ".join(
        language.code_operations[op].format(value) for op, value in operations
    )
    expression = start
    for op, value in operations:
        expression = f"({expression} {op} {value})"
    return _problem(
        "tiny_code",
        language.code_question.format(start, operations_in_words),
        expression,
        language,
        start=start,
        operations=[list(operation) for operation in operations],
        level=level,
    )


def work_code(problem: Problem, speak: Speak, slip: Slip) -> list[str]:
    """Applies one operation per line; a slip writes a wrong operator. The last line answers."""
    expression, lines = problem.metadata["start"], []
    for i, (op, value) in enumerate(problem.metadata["operations"]):
        language = speak()
        written = {"+": "-", "-": "+", "*": "+"}[op] if slip(i) else op
        expression = f"({expression} {written} {value})"
        operation = language.code_operations[op].format(value)
        lines.append(language.code_step.format(operation, expression))
    return lines + [expression]


def all_facts() -> list[Problem]:
    """Returns all knowledge questions: two facts per country, two wordings and two languages."""
    problems = []
    for country, (capital, continent) in COUNTRIES.items():
        for language in LANGUAGES.values():
            name = language.continents[continent]
            asked = (
                (language.capital_questions, capital, language.capital_statement),
                (language.continent_questions, name, language.continent_statement),
            )
            for questions, answer, statement in asked:
                told = statement.format(country, answer)
                problems += [
                    _problem(
                        "tiny_knowledge", question.format(country), answer, language,
                        told=told, wording=wording,
                    )
                    for wording, question in enumerate(questions)
                ]  # fmt: skip
    return problems


_FACTS = {code: [p for p in all_facts() if p.metadata["language"] == code] for code in LANGUAGES}


def draw_fact(rng: random.Random, language: Language, level: int) -> Problem:
    """Draws a question about a country; facts have no levels."""
    del level
    return rng.choice(_FACTS[language.name])


def work_fact(problem: Problem, speak: Speak, slip: Slip) -> list[str]:
    """Recalls the fact in one line; the last line is the answer."""
    del slip  # The corpus contains no false facts.
    return [speak().recall.format(problem.metadata["told"]), problem.answer]


def draw_greeting(rng: random.Random, language: Language, level: int) -> Problem:
    """Draws a greeting; the reference answer is a helpful reply, and greetings have no levels."""
    del level
    name = rng.choice(NAMES)
    question = rng.choice(language.greetings).format(name)
    return _problem("tiny_chat", question, language.helpful_reply.format(name), language, name=name)


DRAW = {
    "tiny_math": draw_sum,
    "tiny_logic": draw_contest,
    "tiny_code": draw_code,
    "tiny_countdown": countdown.draw_countdown,
    "tiny_knowledge": draw_fact,
    "tiny_chat": draw_greeting,
}
WORK = {
    "tiny_math": work_sum,
    "tiny_logic": work_contest,
    "tiny_code": work_code,
    "tiny_countdown": countdown.work_countdown,
    "tiny_knowledge": work_fact,
}
# Lowest and highest levels of evaluation and RL. The corpus also has easier and harder problems.
# RL never sees the harder ones: they show what search can do beyond training.
LEVELS = {
    "tiny_math": (5, 7), "tiny_logic": (3, 5), "tiny_code": (3, 4), "tiny_countdown": (4, 5),
}  # fmt: skip
EASIER_LEVELS = {
    "tiny_math": (2, 4), "tiny_logic": (2, 2), "tiny_code": (1, 2), "tiny_countdown": (2, 3),
}  # fmt: skip
HARDER_LEVELS = {"tiny_math": (8, 9)}


def levels_of(task: str) -> tuple[int, int]:
    """Returns the lowest and highest level of a task; (1, 1) if the task has no levels."""
    return LEVELS.get(task, (1, 1))


def solution_lines(
    problem: Problem, languages: Sequence[Language], rng: random.Random
) -> list[str]:
    """Writes a solution without errors, each line in one of `languages`; the last line answers."""
    return WORK[problem.task](problem, lambda: rng.choice(languages), lambda line: False)
