"""Splits the problems of the tiny world into training and test problems, independent of any seed.

A hash of a problem's content decides its split. For math, logic, code and countdown, the content is
the same in all wordings and languages (in countdown, in all orders of the numbers, too), and
problems of the easier levels are always training problems. Facts are split by wording, since a
model must have read a fact to know it; greetings are split by name and phrase.
"""

import hashlib
import random
from collections.abc import Iterator

from models.seeds import derive_seed
from reasoning.problem import Problem
from reasoning.tiny_world import domains
from reasoning.tiny_world.language import LANGUAGES

TEST_SHARE = 0.1
CHAT_SHARE = 0.4


def _content(problem: Problem) -> str:
    """Returns the content of a problem, equal for all its wordings and languages."""
    data = problem.metadata
    if problem.task == "tiny_math":
        return f"sum {data['terms']}"
    if problem.task == "tiny_logic":
        return f"contest {data['facts']} {data['loses']}"
    if problem.task == "tiny_code":
        return f"code {problem.answer}"
    if problem.task == "tiny_countdown":
        return f"countdown {data['target']} {sorted(data['numbers'])}"
    return problem.question


def is_test(problem: Problem) -> bool:
    """Returns whether a problem is held out from every corpus and training set."""
    low, _ = domains.levels_of(problem.task)
    if problem.metadata.get("level", low) < low:
        return False
    if problem.task == "tiny_knowledge":
        # One wording in four is held out, never both wordings of a fact: training states the fact
        # and asks for it in the other wording.
        return _hash(problem.metadata["told"]) % 4 == problem.metadata["wording"]
    share = CHAT_SHARE if problem.task == "tiny_chat" else TEST_SHARE
    return _hash(_content(problem)) < share * 2**64


def _hash(text: str) -> int:
    """Returns a hash that is uniform below 2**64 and the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def problems(
    task: str, split: str, seed: int, levels: tuple[int, int] | None = None
) -> Iterator[Problem]:
    """Yields distinct problems of one task and split, without end.

    The iterator ends only for tasks with few problems (knowledge and chat).

    Args:
      task: name of the task, such as "tiny_math".
      split: "train" or "test".
      seed: seed of the draws; it does not change the split of a problem.
      levels: lowest and highest level; the task's own range by default.

    Raises:
      ValueError: the split is unknown.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is unknown; choose train or test")
    rng = random.Random(derive_seed(seed, task, split))
    low, high = levels or domains.levels_of(task)
    seen: set[str] = set()
    misses = 0
    while misses < 2000:
        language = LANGUAGES[rng.choice(tuple(LANGUAGES))]
        problem = domains.DRAW[task](rng, language, rng.randint(low, high))
        if problem.question in seen or is_test(problem) != (split == "test"):
            misses += 1
            continue
        misses = 0
        seen.add(problem.question)
        yield problem
