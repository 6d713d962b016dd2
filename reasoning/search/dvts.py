"""Diverse verifier tree search: independent subtrees, each followed greedily.

Beeching, Tunstall and Rush, "Scaling test-time compute with open models" (2024): where a beam
narrows down on variants of one path, subtrees that never compete keep the candidates diverse.
"""

import dataclasses
from collections.abc import Sequence

from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.beam import check_settings, choose
from reasoning.search.interface import Policy, SearchResult
from reasoning.search.scored_paths import ROOT, Path, ScoredPaths, batches
from reasoning.verifiers import Verifier, aggregate


@dataclasses.dataclass(frozen=True)
class DiverseTreeSearch:
    """`budget` / `expansions` subtrees, each of which keeps the best of its `expansions` steps.

    Attributes:
      expansions: M, steps sampled at a time in each subtree; all of a budget below it.
      how: how a path's step scores become one.
      choose: "vote" of the subtrees' responses, weighted by score, or the "best" of them.
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
        interface.check_budget(budget, "dvts")
        verifier = interface.require_verifier(verifier, "dvts")
        interface.require_steps(policy, "dvts")
        expansions = min(self.expansions, budget)
        trees = budget // expansions
        width = trees * expansions
        found = []
        for i, batch in enumerate(batches(problems, policy.problems_at_once(width))):
            paths = ScoredPaths(
                policy, verifier, batch, capacity=width, width=width, seed=seed + i
            )
            heads = [[ROOT] * trees for _ in batch]
            while not all(head.ended for each in heads for head in each):
                heads = self._advance(paths, heads, expansions)
            found += choose(policy, paths, batch, heads, self.how, self.choose)
        return found

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
            extended = iter(extended)
            advanced.append(
                [
                    head
                    if head.ended
                    else max(
                        [next(extended) for _ in range(expansions)],
                        key=lambda path: aggregate(path.scores, self.how),
                    )
                    for head in each
                ]
            )
        return advanced
