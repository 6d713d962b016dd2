"""The pretraining corpus of a world of countdown alone: attempts that are right or lead nowhere.

Writers do not always look ahead. Any step may be one at random, and who is then in a dead end goes
on at random to an answer that is wrong. So a model of this corpus proposes right and wrong steps,
and a search has something to choose from. A model has to look for the target before it can choose:
problems that are almost solved are there to teach that. No document has a question of the test
split (`splits`).
"""

import random

from models.seeds import derive_seed
from reasoning.prompts import PLAIN
from reasoning.response import tagged
from reasoning.tiny_world import corpus, countdown
from reasoning.tiny_world.countdown import Move
from reasoning.tiny_world.language import LANGUAGES

TASK = "tiny_countdown"
# Share of documents that are separate steps, without a target.
DRILL_SHARE = 0.1
# Share of documents that are problems with one or two steps to go. A corpus without them, and with
# twice as many random steps, left a base model (seed 100) choosing even its last step at random.
ENDING_SHARE = 0.25
# Weights of the numbers of a problem, and of the styles of its answer.
LEVEL_WEIGHTS = {2: 2, 3: 3, 4: 4, 5: 3}
STYLE_WEIGHTS = {corpus.DIRECT: 5, corpus.UNTAGGED: 5, corpus.TAGGED: 90}
# Share of steps that are taken at random, not on the way to the target.
STRAY_SHARE = 0.15


def _drill(rng: random.Random) -> str:
    """Writes a document of separate steps with what is left after them, one a line."""
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    lines = []
    for _ in range(rng.randint(3, 5)):
        numbers = [rng.randint(1, rng.choice((9, countdown.MOST)))]
        numbers += [rng.randint(1, countdown.LARGEST) for _ in range(rng.randint(1, 3))]
        move = rng.choice(countdown.moves(numbers, False))
        lines += countdown.told(numbers, [move], lambda: language)[:-1]
    return "".join(f" {line}\n" for line in lines)


def _ending(rng: random.Random) -> tuple[list[int], int]:
    """Draws a result so far with one or two numbers more, and a target that a chain reaches."""
    numbers = [rng.randint(1, countdown.MOST)]
    numbers += [rng.randint(1, countdown.LARGEST) for _ in range(rng.randint(1, 2))]
    left = numbers
    while len(left) > 1:
        left = countdown.after(left, rng.choice(countdown.moves(left, False)))
    return numbers, left[0]


def attempt(rng: random.Random, numbers: list[int], target: int, begun: bool = False) -> list[Move]:
    """Returns the steps of an attempt, some of them at random; see the module.

    Args:
      numbers: the given numbers.
      target: what shall be reached.
      begun: whether the first number is a result, with which the first step goes on.
    """
    left, taken = numbers, []
    while len(left) > 1:
        first, right = not (taken or begun), []
        if rng.random() >= STRAY_SHARE:
            right = countdown.right_moves(left, target, first)
        taken.append(rng.choice(right or countdown.moves(left, first)))
        left = countdown.after(left, taken[-1])
    return taken


def document(rng: random.Random) -> str:
    """Draws one document; the text has no end-of-sequence token."""
    if rng.random() < DRILL_SHARE:
        return _drill(rng)
    language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
    ending = rng.random() < ENDING_SHARE
    if ending:
        numbers, target = _ending(rng)
        question = countdown.ask(rng, language, numbers, target)
    else:
        (level,) = rng.choices(tuple(LEVEL_WEIGHTS), tuple(LEVEL_WEIGHTS.values()))
        problem = corpus.train_problem(rng, TASK, language, {TASK: (level, level)})
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        question = problem.question
    steps = attempt(rng, numbers, target, begun=ending)
    *lines, answer = countdown.told(numbers, steps, lambda: language)
    (style,) = rng.choices(tuple(STYLE_WEIGHTS), tuple(STYLE_WEIGHTS.values()))
    start = PLAIN.format(question=question)
    if style == corpus.DIRECT:
        return f"{start} {answer}"
    if style == corpus.UNTAGGED:
        return start + " " + "\n ".join([*lines, language.conclusion.format(answer)])
    return start + tagged(lines, answer)


def documents(count: int, seed: int) -> list[str]:
    """Returns `count` documents; none contains a question of the test split."""
    rng = random.Random(derive_seed(seed, "countdown corpus"))
    return [document(rng) for _ in range(count)]
