"""Chooses among candidates by vote, or by score; answers that mean the same count as one choice."""

from collections.abc import Callable, Sequence

import numpy as np

from reasoning.candidate import Candidate
from reasoning.problem import Problem
from reasoning.tasks import Task

# A function from the candidates with an answer to the weight of each one's vote.
Weigh = Callable[[Sequence[Candidate]], Sequence[float]]


def by_count(candidates: Sequence[Candidate]) -> list[float]:
    """Gives every vote weight 1: self-consistency (arXiv:2203.11171)."""
    return [1.0] * len(candidates)


def by_score(candidates: Sequence[Candidate]) -> list[float]:
    """Gives a vote its verifier score as weight (arXiv:2206.02336, "voting verifier").

    A missing or negative score weighs 0.
    """
    return [max(c.score or 0.0, 0.0) for c in candidates]


def by_rank(candidates: Sequence[Candidate]) -> list[float]:
    """Gives weights by Borda count: n to the best of n, 1 to the worst; ties get their mean."""
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
    """Elects for each problem a candidate whose answer has the most weight.

    Candidates without an answer do not vote. Among answers with equal weight, the first one wins.
    Among the candidates with the winning answer, the one with the highest score is elected, or the
    first if there are no scores.

    Args:
      task: decides which answers mean the same.
      problems: the problems.
      candidates: the candidates of each problem.
      weigh: gives each vote its weight.

    Returns:
      The elected candidate of each problem. If no candidate has an answer, it is the one with the
      highest score; None if there are no candidates.
    """
    voters = [[c for c in of_problem if c.answer] for of_problem in candidates]
    groups = task.group_answers(problems, [[c.answer or "" for c in each] for each in voters])
    chosen: list[Candidate | None] = []
    for of_problem, group in zip(voters, groups, strict=True):
        if not of_problem:
            chosen.append(best(candidates[len(chosen)]))
            continue
        totals: dict[int, float] = {}
        for member, weight in zip(group, weigh(of_problem), strict=True):
            totals[member] = totals.get(member, 0.0) + weight
        winner = max(totals, key=totals.__getitem__)  # The first of equals: dicts keep their order.
        supporters = [c for c, member in zip(of_problem, group, strict=True) if member == winner]
        chosen.append(best(supporters))
    return chosen


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """Returns the candidate with the highest score; any with an answer beats all without.

    Returns the first of equals, and None if there are no candidates.
    """

    def worth(candidate: Candidate) -> tuple[bool, float]:
        score = -np.inf if candidate.score is None else candidate.score
        return candidate.answer is not None, score

    return max(candidates, key=worth, default=None)
