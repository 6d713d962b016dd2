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

from models.decoding.sampling import SamplingParams
from reasoning.search.common.scored_paths import ROOT_PATH, Path, ScoredPaths, distinct
from reasoning.search.common.step_search import StepSearch
from reasoning.search.interface import Policy

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
            # A loop, not `max` with a key: a search selects millions of times.
            scale, best = exploration * math.sqrt(node.visits), -math.inf
            children, node = node.children, node.children[0]
            for child in children:
                worth = child.total / child.visits + scale * child.prior / (1 + child.visits)
                if worth > best:
                    best, node = worth, child
        return node


@dataclasses.dataclass(frozen=True)
class TreeSearch(StepSearch):
    """MCTS that spends about `budget` typical responses' tokens.

    Attributes:
      exploration: c.
      short_step: tokens of a short step; the tree has room for as many of them as a budget buys.
    """

    name = "mcts"

    exploration: float = 0.5
    short_step: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.exploration < 0:
            raise ValueError(f"exploration={self.exploration} must not be negative")
        if self.short_step < 1:
            raise ValueError(f"short_step={self.short_step} must be at least 1")

    def width(self, budget: int) -> int:
        """See `StepSearch`: one node is expanded at a time."""
        return min(self.expansions, budget)

    def capacity(self, policy: Policy, budget: int) -> int:
        """See `StepSearch`: the whole tree."""
        return self.width(budget) + budget * policy.typical_tokens // self.short_step

    def problems_at_once(self, policy: Policy, width: int, capacity: int) -> int:
        """See `StepSearch`: trees are large."""
        by_rows = super().problems_at_once(policy, width, capacity)
        return max(1, min(by_rows, MAX_PLACES // capacity))

    def search(
        self, policy: Policy, paths: ScoredPaths, count: int, budget: int
    ) -> list[list[Path]]:
        """See `StepSearch`."""
        width, capacity = self.width(budget), self.capacity(policy, budget)
        roots = [Node(ROOT_PATH, 1.0, None) for _ in range(count)]
        ended: list[list[Path]] = [[] for _ in range(count)]
        used = [0] * count
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
        return ended

    def _expandable(self, root: Node) -> Node | None:
        """The leaf to expand. A visit to an ended path costs nothing and counts its value again."""
        for _ in range(256):
            leaf = root.leaf(self.exploration)
            if not leaf.path.ended:
                return leaf
            leaf.record(self.worth(leaf.path))
        return None  # The search is sure of its answer.

    def _expand(self, leaf: Node, extended: Sequence[Path]) -> None:
        counts = Counter(path.text for path in extended)
        for path in distinct(extended):
            child = Node(path, counts[path.text] / len(extended), leaf)
            leaf.children.append(child)
            child.record(self.worth(path))

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
