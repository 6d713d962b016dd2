"""Self-consistency: sample N responses and give the most frequent answer (arXiv:2203.11171)."""

import dataclasses
from collections.abc import Sequence

from reasoning import voting
from reasoning.candidate import Candidate
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.best_of_n import scored_samples
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier

WEIGHTS = {"count": voting.by_count, "score": voting.by_score, "rank": voting.by_rank}


@dataclasses.dataclass(frozen=True)
class SelfConsistency:
    """Takes a vote among the answers of `budget` samples.

    Attributes:
      weights: the weight of a vote: "count" (each counts once), "score" (the verifier's score) or
        "rank" (Borda count of the verifier's scores).
      aggregation: how a verifier's step scores are combined; see `reasoning.verifiers.aggregate`.
    """

    weights: str = "count"
    aggregation: str = "last"

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(
                f"weights={self.weights!r} is unknown; choose one of {', '.join(WEIGHTS)}"
            )

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
        interface.check_budget(budget, "self_consistency")
        if self.weights != "count":
            interface.require_verifier(verifier, f"self_consistency by {self.weights}")
        used = None if self.weights == "count" else verifier
        candidates, meters = scored_samples(policy, used, problems, budget, self.aggregation, seed)
        spent = [meter.spent for meter in meters]
        picked = self.pick(policy, problems, candidates)
        return interface.results(problems, picked, candidates, spent)

    def pick(
        self,
        policy: Policy,
        problems: Sequence[Problem],
        candidates: Sequence[Sequence[Candidate]],
    ) -> list[Candidate | None]:
        """Returns the elected candidate of each problem.

        Args:
          policy: its task decides which answers are equal.
          problems: the problems.
          candidates: the candidates of each problem, with scores unless `weights` is "count".
        """
        return voting.elect(policy.task, problems, candidates, WEIGHTS[self.weights])
