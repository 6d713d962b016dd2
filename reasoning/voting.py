"""Choosing among candidates by vote: answers that mean the same are one choice."""

from collections.abc import Callable, Sequence

import numpy as np

from reasoning.candidate import Candidate
from reasoning.problem import Problem
from reasoning.tasks import Task

# Candidates with an answer -> the weight of each one's vote.
Weigh = Callable[[Sequence[Candidate]], Sequence[float]]


def by_count(candidates: Sequence[Candidate]) -> list[float]:
    """Every candidate counts once: self-consistency (arXiv:2203.11171)."""
    return [1.0] * len(candidates)


def by_score(candidates: Sequence[Candidate]) -> list[float]:
    """Every candidate counts with its verifier's score (arXiv:2206.02336, "voting verifier")."""
    return [max(c.score or 0.0, 0.0) for c in candidates]


def by_rank(candidates: Sequence[Candidate]) -> list[float]:
    """Borda count: the best of n counts n, the worst 1; equal scores share their mean."""
    scores = np.array([-np.inf if c.score is None else c.score for c in candidates])
    below = (scores[:, None] > scores).sum(1)
    equal = (scores[:, None] == scores).sum(1)
    return (below + (equal + 1) / 2).tolist()


def elect(
    task: Task,
    problems: Sequence[Problem],
    candidates: Sequence[Sequence[Candidate]],
    weigh: Weigh = by_count,
) -> list[Candidate | None]:
    """For each problem a candidate whose answer has the most weight.

    Candidates without an answer do not vote; where none has one, the best is elected all the same.
    Of answers with equal weight the one that came up first wins; its candidate is the one of the
    highest score, the first if there are no scores. None where there are no candidates.
    """
    voters = [[c for c in of_problem if c.answer] for of_problem in candidates]
    groups = task.group_answers(problems, [[c.answer for c in each] for each in voters])
    chosen: list[Candidate | None] = []
    for each, group in zip(voters, groups, strict=True):
        if not each:
            chosen.append(best(candidates[len(chosen)]))
            continue
        totals: dict[int, float] = {}
        for member, weight in zip(group, weigh(each), strict=True):
            totals[member] = totals.get(member, 0.0) + weight
        winner = max(totals, key=totals.get)  # the first of equals: dicts keep their order
        supporters = [c for c, member in zip(each, group, strict=True) if member == winner]
        chosen.append(best(supporters))
    return chosen


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate of the highest score, any with an answer before those without.

    The first of equals; None where there are no candidates.
    """

    def worth(candidate):
        score = -np.inf if candidate.score is None else candidate.score
        return candidate.answer is not None, score

    return max(candidates, key=worth, default=None)
