"""Diverse verifier tree search (DVTS): independent subtrees, each searched greedily.

A beam tends to narrow down to variants of one path. Subtrees never compete with each other, so the
candidates stay diverse (Beeching, Tunstall and Rush, "Scaling test-time compute with open models",
2024).
"""

import dataclasses

from reasoning.search.common.scored_paths import ROOT_PATH, Path, ScoredPaths
from reasoning.search.common.step_search import StepSearch
from reasoning.search.interface import Policy


@dataclasses.dataclass(frozen=True)
class DiverseTreeSearch(StepSearch):
    """Searches `budget` / `expansions` subtrees; each keeps the best of `expansions` new steps."""

    name = "dvts"

    def width(self, budget: int) -> int:
        """Returns the budget, rounded down to a multiple of `expansions`; see `StepSearch`."""
        expansions = min(self.expansions, budget)
        return budget // expansions * expansions

    def search(
        self, policy: Policy, paths: ScoredPaths, count: int, budget: int
    ) -> list[list[Path]]:
        """Returns the finished path of each subtree; see `StepSearch`."""
        expansions = min(self.expansions, budget)
        heads = [[ROOT_PATH] * (budget // expansions) for _ in range(count)]
        while not all(head.ended for each in heads for head in each):
            heads = self._advance(paths, heads, expansions)
        return heads

    def _advance(
        self, paths: ScoredPaths, heads: list[list[Path]], expansions: int
    ) -> list[list[Path]]:
        """Extends every subtree by one step. No two subtrees share a place."""
        wanted = [
            [
                (head, tree * expansions + i)
                for tree, head in enumerate(each)
                if not head.ended
                for i in range(expansions)
            ]
            for each in heads
        ]
        advanced = []
        for subtree, extended in zip(heads, paths.extend(wanted), strict=True):
            steps = iter(extended)
            advanced.append(
                [
                    head
                    if head.ended
                    else max([next(steps) for _ in range(expansions)], key=self.worth)
                    for head in subtree
                ]
            )
        return advanced
