"""The base class of searches over reasoning steps: batches of problems and the final choice.

`beam`, `dvts`, `lookahead` and `mcts` derive from it.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from reasoning import voting
from reasoning.generation.generator import fold_seed
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.common.scored_paths import Path, ScoredPaths
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier, aggregate


@dataclasses.dataclass(frozen=True)
class StepSearch(abc.ABC):
    """A `SearchMethod` over steps, guided by a process verifier.

    Attributes:
      expansions: steps sampled for a path at a time; a smaller budget is used whole.
      aggregation: how a path's step scores are combined, for ranking and voting.
      choose: how to choose among the final responses: "vote", weighted by score, or "best", the
        one with the highest score.
    """

    name: ClassVar[str]

    expansions: int = 4
    aggregation: str = "last"
    choose: str = "vote"

    def __post_init__(self) -> None:
        if self.expansions < 1:
            raise ValueError(f"expansions={self.expansions} must be at least 1")
        if self.choose not in ("vote", "best"):
            raise ValueError(f"choose={self.choose!r} is unknown; choose vote or best")
        aggregate([1.0], self.aggregation)

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """Answers each problem; see `SearchMethod`."""
        interface.check_budget(budget, self.name)
        verifier = interface.require_verifier(verifier, self.name)
        interface.require_steps(policy, self.name)
        width, capacity = self.width(budget), self.capacity(policy, budget)
        at_once = self.problems_at_once(policy, width, capacity)
        found: list[SearchResult] = []
        for start in range(0, len(problems), at_once):
            batch = problems[start : start + at_once]
            paths = ScoredPaths(
                policy, verifier, batch, capacity=capacity, width=width,
                seed=fold_seed(seed, self.name, start),
            )  # fmt: skip
            ended = self.search(policy, paths, len(batch), budget)
            found += self._chosen(policy, paths, batch, ended)
        return found

    def width(self, budget: int) -> int:
        """Returns the paths of one problem that are extended at the same time."""
        return budget

    def capacity(self, policy: Policy, budget: int) -> int:
        """Returns the paths of one problem that are kept at the same time."""
        del policy
        return self.width(budget)

    def problems_at_once(self, policy: Policy, width: int, capacity: int) -> int:
        """Returns the problems that are searched at the same time, in lockstep."""
        del capacity
        return max(1, policy.rows // width)

    @abc.abstractmethod
    def search(
        self, policy: Policy, paths: ScoredPaths, count: int, budget: int
    ) -> list[list[Path]]:
        """Searches a batch of problems.

        Args:
          policy: the model and its limits.
          paths: the paths of the batch, bare prompts at first.
          count: problems of the batch.
          budget: compute for each problem, in responses.

        Returns:
          For each problem the paths that have ended.
        """

    def worth(self, path: Path) -> float:
        """Returns a path's step scores combined into one score."""
        return aggregate(path.scores, self.aggregation)

    def _chosen(
        self,
        policy: Policy,
        paths: ScoredPaths,
        problems: Sequence[Problem],
        ended: Sequence[Sequence[Path]],
    ) -> list[SearchResult]:
        """Chooses among the finished paths of each problem and returns the results."""
        candidates = [[paths.candidate(path, self.aggregation) for path in each] for each in ended]
        if self.choose == "vote":
            chosen = voting.elect(policy.task, problems, candidates, voting.by_score)
        else:
            chosen = [voting.best(each) for each in candidates]
        spent = [meter.spent for meter in paths.meters]
        return interface.results(problems, chosen, candidates, spent)
