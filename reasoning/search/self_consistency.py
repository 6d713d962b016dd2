"""Self-consistency: sample N responses, answer what most of them answer (arXiv:2203.11171)."""

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
    """Votes among `budget` samples.

    Attributes:
      weights: what a vote weighs: "count" (majority), "score" (the verifier's) or "rank" (Borda).
      aggregation: how a verifier's step scores become one, see `reasoning.verifiers.aggregate`.
    """

    weights: str = "count"
    aggregation: str = "last"

    def __post_init__(self):
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
        """See `SearchMethod`."""
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
        """The choice among candidates, which have scores where votes are weighted."""
        return voting.elect(policy.task, problems, candidates, WEIGHTS[self.weights])
