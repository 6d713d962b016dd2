"""Best-of-N: sample N responses and answer with the one that a verifier scores highest.

Any verifier will do: an outcome or process reward model, the mean log-probability, a reward, or the
oracle (arXiv:2110.14168; arXiv:2305.20050).
"""

import dataclasses
from collections.abc import Sequence

from reasoning import voting
from reasoning.budget import Meter
from reasoning.candidate import Candidate
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.budget_forcing import close_chains
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier, aggregate


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """Chooses the sample with the highest verifier score among `budget` samples.

    Attributes:
      aggregation: how the scores of a response's steps are combined into one score: "last", "min",
        "product" or "mean"; see `reasoning.verifiers.aggregate`.
    """

    aggregation: str = "last"

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
        interface.check_budget(budget, "best_of_n")
        verifier = interface.require_verifier(verifier, "best_of_n")
        candidates, meters = scored_samples(
            policy, verifier, problems, budget, self.aggregation, seed
        )
        spent = [meter.spent for meter in meters]
        picked = self.pick(policy, problems, candidates)
        return interface.results(problems, picked, candidates, spent)

    def pick(
        self,
        policy: Policy,
        problems: Sequence[Problem],
        candidates: Sequence[Sequence[Candidate]],
    ) -> list[Candidate | None]:
        """Returns the candidate with the highest score for each problem.

        Args:
          policy: unused; other methods need it.
          problems: unused; other methods need them.
          candidates: the scored candidates of each problem.
        """
        del policy, problems
        return [voting.best(each) for each in candidates]


def scored_samples(
    policy: Policy,
    verifier: Verifier | None,
    problems: Sequence[Problem],
    num_samples: int,
    aggregation: str,
    seed: int,
) -> tuple[list[list[Candidate]], list[Meter]]:
    """Samples `num_samples` candidates for each problem and scores them if there is a verifier.

    Returns:
      The candidates of each problem, and a meter for each problem that has counted the cost.
    """
    completions, meters = draw_samples(policy, verifier, problems, num_samples, seed)
    return score_samples(policy, verifier, problems, completions, meters, aggregation), meters


def draw_samples(
    policy: Policy,
    verifier: Verifier | None,
    problems: Sequence[Problem],
    num_samples: int,
    seed: int,
) -> tuple[list[list[Completion]], list[Meter]]:
    """Samples `num_samples` responses to each problem, without scoring them.

    Args:
      policy: the model and its sampling settings.
      verifier: the verifier that will score the samples; the meters need its model's size.
      problems: the problems.
      num_samples: responses to each problem.
      seed: seed of the draws.

    Returns:
      The completions of each problem, and a meter for each problem that has counted the cost.
    """
    prompts = [policy.template(problem.question) for problem in problems]
    meters = interface.meters(policy, verifier, interface.prompt_lengths(policy, prompts))
    completions = interface.sample(policy, prompts, num_samples, meters, seed=seed)
    return close_chains(policy, prompts, completions, meters), meters


def score_samples(
    policy: Policy,
    verifier: Verifier | None,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[Completion]],
    meters: Sequence[Meter],
    aggregation: str,
) -> list[list[Candidate]]:
    """Returns completions as candidates, with scores if there is a verifier.

    Args:
      policy: the model; its task extracts the answers.
      verifier: scores the completions; None for candidates without scores.
      problems: the problems.
      completions: the completions of each problem.
      meters: one for each problem; they count the tokens that the verifier reads.
      aggregation: how step scores are combined; see `reasoning.verifiers.aggregate`.
    """
    if verifier is None:
        return [[interface.candidate(policy, c) for c in group] for group in completions]
    prompts = [policy.template(problem.question) for problem in problems]
    scores = verifier.score(problems, prompts, completions)
    lengths = interface.prompt_lengths(policy, prompts)
    for meter, group, length in zip(meters, completions, lengths, strict=True):
        for completion in group:
            meter.verify(length + len(completion.token_ids), 0)
    return [
        [
            interface.candidate(policy, completion, aggregate(steps, aggregation))
            for completion, steps in zip(group, of_group, strict=True)
        ]
        for group, of_group in zip(completions, scores, strict=True)
    ]
