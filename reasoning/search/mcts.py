"""Monte-Carlo tree search over reasoning steps, with a verifier's values instead of rollouts.

A node is a partial response. The search walks down the tree by the PUCT rule of AlphaZero
(arXiv:1712.01815): it takes the child with the largest Q + c P sqrt(N_parent) / (1 + N). To expand
a leaf, it samples steps from the policy. The prior P of a child is the share of these samples that
gave its step, N counts its visits, and Q is the mean value of its subtree. The value of a new node
is the verifier's score.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from models.decoding.sampling import SamplingParams
from reasoning.search.common.scored_paths import ROOT_PATH, Path, ScoredPaths, distinct
from reasoning.search.common.step_search import StepSearch
from reasoning.search.interface import Policy

# Most places (paths whose keys and values stay on the device) of all problems of a batch together.
MAX_PLACES = 8192


class Node:
    """A node of the search tree: a partial response.

    Attributes:
      path: the partial response.
      prior: P of the PUCT rule, the share of the parent's samples that gave this step.
      parent: the node above; None for the root.
      children: the nodes below; empty for a leaf.
      visits: N of the PUCT rule.
      total: sum of the values recorded in this subtree; Q is `total / visits`.
    """

    def __init__(self, path: Path, prior: float, parent: "Node | None"):
        self.path, self.prior, self.parent = path, prior, parent
        self.children: list[Node] = []
        self.visits, self.total = 0, 0.0

    def record(self, value: float) -> None:
        """Adds a value and a visit to this node and to all nodes above it."""
        node = self
        while node is not None:
            node.visits += 1
            node.total += value
            node = node.parent

    def leaf(self, exploration: float) -> "Node":
        """Follows the PUCT rule down to a node without children and returns it.

        Args:
          exploration: the constant c of the rule.
        """
        node = self
        while node.children:
            # This loop runs millions of times in a search; `max` with a key would be slower.
            scale, best = exploration * math.sqrt(node.visits), -math.inf
            children, node = node.children, node.children[0]
            for child in children:
                worth = child.total / child.visits + scale * child.prior / (1 + child.visits)
                if worth > best:
                    best, node = worth, child
        return node


@dataclasses.dataclass(frozen=True)
class TreeSearch(StepSearch):
    """MCTS that generates about as many tokens as `budget` typical responses have.

    Attributes:
      exploration: c of the PUCT rule; larger values visit less-visited nodes more.
      short_step: tokens of a short step. The tree has room for as many steps of this length as the
        budget buys.
    """

    name = "mcts"

    exploration: float = 0.5
    short_step: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exploration < 0:
            raise ValueError(f"exploration={self.exploration} must not be negative")
        if self.short_step < 1:
            raise ValueError(f"short_step={self.short_step} must be at least 1")

    def width(self, budget: int) -> int:
        """Returns the steps sampled to expand a node; each problem expands one node at a time."""
        return min(self.expansions, budget)

    def capacity(self, policy: Policy, budget: int) -> int:
        """Returns the number of places for the whole tree of one problem."""
        return self.width(budget) + budget * policy.typical_tokens // self.short_step

    def problems_at_once(self, policy: Policy, width: int, capacity: int) -> int:
        """Returns the problems searched at the same time, fewer if their trees are large."""
        by_rows = super().problems_at_once(policy, width, capacity)
        return max(1, min(by_rows, MAX_PLACES // capacity))

    def search(
        self, policy: Policy, paths: ScoredPaths, count: int, budget: int
    ) -> list[list[Path]]:
        """Returns the finished paths in each problem's tree; see `StepSearch`."""
        width, capacity = self.width(budget), self.capacity(policy, budget)
        roots = [Node(ROOT_PATH, 1.0, None) for _ in range(count)]
        ended: list[list[Path]] = [[] for _ in range(count)]
        used = [0] * count
        allowed = budget * policy.typical_tokens

        def open_(p: int) -> bool:
            """Says whether problem p has budget and places left."""
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
        """Returns the next leaf to expand, or None if the search has settled on finished paths.

        A visit to a finished path costs nothing and records its value again.
        """
        for _ in range(256):
            leaf = root.leaf(self.exploration)
            if not leaf.path.ended:
                return leaf
            leaf.record(self.worth(leaf.path))
        return None

    def _expand(self, leaf: Node, extended: Sequence[Path]) -> None:
        """Adds the sampled extensions of a leaf to the tree, equal ones as one child."""
        counts = Counter(path.text for path in extended)
        for path in distinct(extended):
            child = Node(path, counts[path.text] / len(extended), leaf)
            leaf.children.append(child)
            child.record(self.worth(path))

    def _finish(self, paths: ScoredPaths, roots: list[Node], ended: list[list[Path]]) -> None:
        """Completes one path for each problem whose budget ran out before any path ended.

        Continues the most visited path greedily and adds it to `ended`.
        """
        heads = [None if ended[p] else self._most_visited(root) for p, root in enumerate(roots)]
        greedy = SamplingParams(temperature=0.0)
        while any(heads):
            wanted = [[(head, max(head.place, 0))] if head else [] for head in heads]
            for p, extended in enumerate(paths.extend(wanted, greedy)):
                if extended:
                    heads[p] = None if extended[0].ended else extended[0]
                    ended[p] += [path for path in extended if path.ended]

    def _most_visited(self, root: Node) -> Path:
        """Returns the path of the leaf that the most visited children lead to."""
        node = root
        while node.children:
            node = max(node.children, key=lambda child: child.visits)
        return node.path
