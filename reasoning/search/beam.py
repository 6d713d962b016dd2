"""Beam search over reasoning steps, guided by a process verifier (arXiv:2408.03314, section 5)."""

import dataclasses
from collections.abc import Sequence

from reasoning.problem import Problem
from reasoning.search import interface, voting
from reasoning.search.interface import Policy, SearchResult
from reasoning.search.scored_paths import ROOT, Path, ScoredPaths, batches, distinct
from reasoning.verifiers import Verifier, aggregate


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Keeps the `budget` / `expansions` best partial responses; samples steps for each.

    A path that ends stays among the final candidates and leaves the beam one narrower. Of equal
    paths one is kept.

    Attributes:
      expansions: M, steps sampled for each kept path; all of a budget below it.
      how: how a path's step scores become one, for ranking and voting.
      choose: "vote" of the final candidates, weighted by score, or the "best" of them.
    """

    expansions: int = 4
    how: str = "last"
    choose: str = "vote"

    def __post_init__(self):
        check_settings(self.expansions, self.how, self.choose)

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """See `SearchMethod`."""
        interface.check_budget(budget, "beam")
        verifier = interface.require_verifier(verifier, "beam")
        interface.require_steps(policy, "beam")
        width = self.width(budget)
        found = []
        for i, batch in enumerate(batches(problems, policy.problems_at_once(width))):
            paths = ScoredPaths(
                policy, verifier, batch, capacity=width, width=width, seed=seed + i
            )
            found += self._search(policy, paths, batch, width)
        return found

    def width(self, budget: int) -> int:
        """Paths of a problem that are extended at a time."""
        return budget

    def rank(self, paths: ScoredPaths, extended: list[list[Path]]) -> list[list[float]]:
        """What each extended path is worth."""
        del paths
        return [[aggregate(path.scores, self.how) for path in each] for each in extended]

    def _search(self, policy, paths, problems, width):
        expansions = min(self.expansions, width)
        slots = [width // expansions] * len(problems)
        live: list[list[Path]] = [[ROOT] for _ in problems]
        done: list[list[Path]] = [[] for _ in problems]
        while any(live):
            extended = paths.extend(
                [spread(beam, free * expansions) for beam, free in zip(live, slots, strict=True)]
            )
            extended = [distinct(each) for each in extended]
            worth = self.rank(paths, extended)
            for p, each in enumerate(extended):
                ranked = sorted(zip(worth[p], each, strict=True), key=lambda pair: -pair[0])
                kept = [path for _, path in ranked[: slots[p]]]
                done[p] += [path for path in kept if path.ended]
                live[p] = [path for path in kept if not path.ended]
                slots[p] -= sum(path.ended for path in kept)
        return choose(policy, paths, problems, done, self.how, self.choose)


def check_settings(expansions: int, how: str, by: str) -> None:
    """Raises `ValueError` for settings of a search over steps that cannot be."""
    if expansions < 1:
        raise ValueError(f"expansions={expansions} must be at least 1")
    if by not in ("vote", "best"):
        raise ValueError(f"choose={by!r} is unknown; choose vote or best")
    aggregate([1.0], how)


def spread(beam: Sequence[Path], rows: int) -> list[tuple[Path, int]]:
    """`rows` extensions, as evenly over the beam as may be, better paths first; with their places."""
    return [(beam[row % len(beam)], row) for row in range(rows)] if beam else []


def choose(
    policy: Policy,
    paths: ScoredPaths,
    problems: Sequence[Problem],
    ended: Sequence[Sequence[Path]],
    how: str,
    by: str,
) -> list[SearchResult]:
    """Results whose answer is voted for by whole responses, or that of the best of them."""
    candidates = [[paths.candidate(path, how) for path in each] for each in ended]
    if by == "vote":
        chosen = voting.elect(policy.task, problems, candidates, voting.by_score)
    else:
        chosen = [voting.best(each) for each in candidates]
    return interface.results(problems, chosen, candidates, paths.meters)
