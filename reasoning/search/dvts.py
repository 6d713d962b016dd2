"""Diverse verifier tree search: independent subtrees, each followed greedily.

Beeching, Tunstall and Rush, "Scaling test-time compute with open models" (2024): where a beam
narrows down on variants of one path, subtrees that never compete keep the candidates diverse.
"""

import dataclasses

from reasoning.search.common.scored_paths import ROOT_PATH, Path, ScoredPaths
from reasoning.search.common.step_search import StepSearch
from reasoning.search.interface import Policy


@dataclasses.dataclass(frozen=True)
class DiverseTreeSearch(StepSearch):
    """`budget` / `expansions` subtrees, each of which keeps the best of its `expansions` steps."""

    name = "dvts"

    def width(self, budget: int) -> int:
        """See `StepSearch`: whole subtrees."""
        expansions = min(self.expansions, budget)
        return budget // expansions * expansions

    def search(
        self, policy: Policy, paths: ScoredPaths, count: int, budget: int
    ) -> list[list[Path]]:
        """See `StepSearch`."""
        expansions = min(self.expansions, budget)
        heads = [[ROOT_PATH] * (budget // expansions) for _ in range(count)]
        while not all(head.ended for each in heads for head in each):
            heads = self._advance(paths, heads, expansions)
        return heads

    def _advance(self, paths: ScoredPaths, heads, expansions) -> list[list[Path]]:
        """Every subtree one step further; its places are its own."""
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
        for each, extended in zip(heads, paths.extend(wanted), strict=True):
            steps = iter(extended)
            advanced.append(
                [
                    head
                    if head.ended
                    else max([next(steps) for _ in range(expansions)], key=self.worth)
                    for head in each
                ]
            )
        return advanced
