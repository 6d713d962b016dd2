"""Beam search over reasoning steps, guided by a process verifier (arXiv:2408.03314, section 5).

`lookahead` builds on it.
"""

import dataclasses
from collections.abc import Sequence

from reasoning.search.common.scored_paths import ROOT_PATH, Path, ScoredPaths, distinct
from reasoning.search.common.step_search import StepSearch
from reasoning.search.interface import Policy


@dataclasses.dataclass(frozen=True)
class BeamSearch(StepSearch):
    """Keeps the `budget` / `expansions` best paths and samples `expansions` steps for each.

    A path that has ended becomes a final candidate, and the beam is one path narrower from then on.
    Paths with equal text count as one.
    """

    name = "beam"

    def search(
        self, policy: Policy, paths: ScoredPaths, count: int, budget: int
    ) -> list[list[Path]]:
        """Returns each problem's finished paths; see `StepSearch`."""
        width = self.width(budget)
        expansions = min(self.expansions, width)
        slots = [width // expansions] * count
        live: list[list[Path]] = [[ROOT_PATH] for _ in range(count)]
        done: list[list[Path]] = [[] for _ in range(count)]
        while any(live):
            extended = paths.extend(
                [spread(beam, free * expansions) for beam, free in zip(live, slots, strict=True)]
            )
            extended = [distinct(each) for each in extended]
            worth = self.rank(paths, extended)
            for p, paths_of in enumerate(extended):
                ranked = sorted(zip(worth[p], paths_of, strict=True), key=lambda pair: -pair[0])
                kept = [path for _, path in ranked[: slots[p]]]
                done[p] += [path for path in kept if path.ended]
                live[p] = [path for path in kept if not path.ended]
                slots[p] -= sum(path.ended for path in kept)
        return done

    def rank(self, paths: ScoredPaths, extended: list[list[Path]]) -> list[list[float]]:
        """Returns a score for each extended path; the beam keeps the highest.

        Args:
          paths: all paths of the search; subclasses extend a copy of them to look ahead.
          extended: the new paths of each problem.
        """
        del paths
        return [[self.worth(path) for path in each] for each in extended]


def spread(beam: Sequence[Path], rows: int) -> list[tuple[Path, int]]:
    """Divides `rows` extensions evenly among the paths of a beam; better paths get the remainder.

    Args:
      beam: paths, best first.
      rows: number of extensions.

    Returns:
      (path to extend, place of the extended path) for each extension; empty if the beam is.
    """
    return [(beam[row % len(beam)], row) for row in range(rows)] if beam else []
