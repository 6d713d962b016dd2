"""Training and test problems of the tiny world: apart by construction, whatever the seed.

A problem belongs to the test split if a hash of what it asks, in either language and wording,
says so. Math, logic and code problems of the easier levels are all training problems; facts are
apart by wording (the facts themselves must be known), greetings by who greets how.
"""

import hashlib
import random
from collections.abc import Iterator

from reasoning.problem import Problem
from reasoning.tiny_world import domains
from reasoning.tiny_world.language import LANGUAGES

TEST_SHARE = 0.1
CHAT_SHARE = 0.4


def _content(problem: Problem) -> str:
    """What is asked, the same for a problem's wordings and languages."""
    data = problem.metadata
    if problem.task == "tiny_math":
        return f"sum {data['terms']}"
    if problem.task == "tiny_logic":
        return f"contest {data['facts']} {data['loses']}"
    if problem.task == "tiny_code":
        return f"code {problem.answer}"
    return problem.question


def is_test(problem: Problem) -> bool:
    """Whether a problem is held out from every corpus and training set."""
    low, _ = domains.levels_of(problem.task)
    if problem.metadata.get("level", low) < low:
        return False
    if problem.task == "tiny_knowledge":
        # One wording in four, never both of a fact: training tells it, and asks for it otherwise.
        return _hash(problem.metadata["told"]) % 4 == problem.metadata["wording"]
    share = CHAT_SHARE if problem.task == "tiny_chat" else TEST_SHARE
    return _hash(_content(problem)) < share * 2**64


def _hash(text: str) -> int:
    """Uniform below 2**64, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def problems(
    task: str, split: str, seed: int, levels: tuple[int, int] | None = None
) -> Iterator[Problem]:
    """Endless distinct problems of one task and split.

    The iterator ends early only for tasks with few problems (knowledge and chat).

    Args:
      levels: lowest and highest difficulty; the task's own range by default.

    Raises:
      ValueError: an unknown split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is unknown; choose train or test")
    rng = random.Random(f"{task} {split} {seed}")
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
