"""Monte-Carlo tree search over reasoning steps, with a verifier's values instead of rollouts.

PUCT selection (AlphaZero, arXiv:1712.01815): argmax of Q + c P sqrt(N_parent) / (1 + N). A node is
a partial response; expanding one samples steps from the policy, whose shares among distinct steps
are the priors P. The verifier's score of a new node is its value, and Q the mean of the values in
its subtree.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from models.sampler import SamplingParams
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.beam import check_settings, choose
from reasoning.search.interface import Policy, SearchResult
from reasoning.search.scored_paths import ROOT, Path, ScoredPaths, batches
from reasoning.verifiers import Verifier, aggregate

# Keys and values of so many paths are kept at a time, for all problems of a batch together.
MAX_PLACES = 8192


class Node:
    """A partial response in the tree.

    Attributes:
      prior: P, share of its parent's samples that were this step.
      visits, total: N, and the sum of the values behind it.
    """

    def __init__(self, path: Path, prior: float, parent: "Node | None"):
        self.path, self.prior, self.parent = path, prior, parent
        self.children: list[Node] = []
        self.visits, self.total = 0, 0.0

    def record(self, value: float) -> None:
        """Adds a value to this node and all above it."""
        node = self
        while node is not None:
            node.visits += 1
            node.total += value
            node = node.parent

    def leaf(self, exploration: float) -> "Node":
        """The node without children that PUCT leads to."""
        node = self
        while node.children:
            scale = exploration * math.sqrt(node.visits)
            node = max(
                node.children,
                key=lambda child: child.total / child.visits
                + scale * child.prior / (1 + child.visits),
            )
        return node


@dataclasses.dataclass(frozen=True)
class TreeSearch:
    """MCTS that spends about `budget` typical responses' tokens.

    Attributes:
      expansions: M, steps sampled when a node is expanded.
      exploration: c.
      how: how a path's step scores become its value.
      choose: "vote" of the whole responses found, weighted by score, or the "best" of them.
      short_step: tokens of a short step; the tree has room for as many of them as a budget buys.
    """

    expansions: int = 4
    exploration: float = 0.5
    how: str = "last"
    choose: str = "vote"
    short_step: int = 4

    def __post_init__(self):
        check_settings(self.expansions, self.how, self.choose)
        if self.exploration < 0:
            raise ValueError(f"exploration={self.exploration} must not be negative")
        if self.short_step < 1:
            raise ValueError(f"short_step={self.short_step} must be at least 1")

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
        interface.check_budget(budget, "mcts")
        verifier = interface.require_verifier(verifier, "mcts")
        interface.require_steps(policy, "mcts")
        width = min(self.expansions, budget)
        capacity = width + budget * policy.typical_tokens // self.short_step
        at_once = max(1, min(policy.problems_at_once(width), MAX_PLACES // capacity))
        found = []
        for i, batch in enumerate(batches(problems, at_once)):
            paths = ScoredPaths(
                policy, verifier, batch, capacity=capacity, width=width, seed=seed + i
            )
            found += self._search(policy, paths, batch, budget, width, capacity)
        return found

    def _search(self, policy, paths, problems, budget, width, capacity):
        roots = [Node(ROOT, 1.0, None) for _ in problems]
        ended: list[list[Path]] = [[] for _ in problems]
        used = [0] * len(problems)
        allowed = budget * policy.typical_tokens

        def open_(p):
            spent = paths.meters[p].spent.generated_tokens
            return spent < allowed and used[p] + width <= capacity

        while True:
            leaves: list[Node | None] = [
                self._expandable(root) if open_(p) else None for p, root in enumerate(roots)
            ]
            if not any(leaves):
                break
            wanted = [
                [(leaf.path, used[p] + i) for i in range(width)] if leaf else []
                for p, leaf in enumerate(leaves)
            ]
            for p, (leaf, extended) in enumerate(zip(leaves, paths.extend(wanted), strict=True)):
                if leaf:
                    used[p] += width
                    self._expand(leaf, extended)
                    ended[p] += [child.path for child in leaf.children if child.path.ended]
        self._finish(paths, roots, ended)
        return choose(policy, paths, problems, ended, self.how, self.choose)

    def _expandable(self, root: Node) -> Node | None:
        """The leaf to expand. A visit to an ended path costs nothing and counts its value again."""
        for _ in range(256):
            leaf = root.leaf(self.exploration)
            if not leaf.path.ended:
                return leaf
            leaf.record(aggregate(leaf.path.scores, self.how))
        return None  # The search is sure of its answer.

    def _expand(self, leaf: Node, extended: Sequence[Path]) -> None:
        counts = Counter(path.text for path in extended)
        for path in {path.text: path for path in extended}.values():
            child = Node(path, counts[path.text] / len(extended), leaf)
            leaf.children.append(child)
        for child in leaf.children:
            child.record(aggregate(child.path.scores, self.how))

    def _finish(self, paths: ScoredPaths, roots, ended) -> None:
        """Where the budget ended before any path did, the most visited one is followed greedily."""
        heads = [None if ended[p] else self._most_visited(root) for p, root in enumerate(roots)]
        greedy = SamplingParams(temperature=0.0)
        while any(heads):
            wanted = [[(head, max(head.place, 0))] if head else [] for head in heads]
            for p, extended in enumerate(paths.extend(wanted, greedy)):
                if extended:
                    heads[p] = None if extended[0].ended else extended[0]
                    ended[p] += [path for path in extended if path.ended]

    def _most_visited(self, root: Node) -> Path:
        node = root
        while node.children:
            node = max(node.children, key=lambda child: child.visits)
        return node.path
