"""Votes that stop early or leave out samples: self-consistency for fewer tokens.

`AdaptiveVote` stops sampling once the majority is settled (adaptive consistency, arXiv:2305.11860).
`ConfidentVote` also leaves out the samples that the model was least sure of, and weighs the others
(DeepConf, arXiv:2508.15260).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

from reasoning import voting
from reasoning.budget import Meter
from reasoning.candidate import Candidate
from reasoning.generation.generator import Completion, fold_seed
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.budget_forcing import close_chains
from reasoning.search.common.sample_bank import SampleBank
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier


@dataclasses.dataclass(frozen=True)
class AdaptiveVote:
    """Samples in rounds until the most frequent answer is ahead with `confidence`, or to `budget`.

    Attributes:
      confidence: probability that the first answer would stay ahead of the second for ever; see
        `settled`.
      first: samples of the first round.
      round: samples of each further round.
    """

    confidence: float = 0.95
    first: int = 3
    round: int = 2

    def __post_init__(self) -> None:
        _check_settings(self.confidence, self.first, self.round)

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """Answers each problem; see `SearchMethod`. Needs no verifier."""
        del verifier
        interface.check_budget(budget, "adaptive_majority")
        drawn, meters = _rounds(self, policy, problems, budget, seed)
        candidates = [[interface.candidate(policy, c) for c in group] for group in drawn]
        chosen = voting.elect(policy.task, problems, candidates)
        return interface.results(problems, chosen, candidates, [m.spent for m in meters])


@dataclasses.dataclass(frozen=True)
class ConfidentVote:
    """A vote among the samples that the model was most sure of, weighed by how sure it was.

    A sample is as sure as its weakest stretch: the lowest mean log-probability of any `window`
    tokens in a row. The paper averages the log-probabilities of the most likely tokens at each
    place; generators report that of the drawn token, which is used instead. A sample without
    log-probabilities counts as an average one.

    Attributes:
      keep: the share of samples that vote.
      window: tokens of a stretch.
      confidence, first, round: see `AdaptiveVote`; `confidence=1` takes all samples.
    """

    keep: float = 0.5
    window: int = 16
    confidence: float = 0.95
    first: int = 4
    round: int = 4

    def __post_init__(self) -> None:
        _check_settings(self.confidence, self.first, self.round)
        if not 0 < self.keep <= 1 or self.window < 1:
            raise ValueError(
                f"keep={self.keep} must be above 0 and at most 1, window={self.window} at least 1"
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
        """Answers each problem; see `SearchMethod`. Needs no verifier."""
        del verifier
        interface.check_budget(budget, "confident_majority")
        drawn, meters = _rounds(self, policy, problems, budget, seed)
        candidates, voters = [], []
        for group in drawn:
            sure = np.array([weakest_stretch(each, self.window) for each in group])
            sure = np.where(
                np.isnan(sure), np.nanmean(sure) if not np.isnan(sure).all() else 0, sure
            )
            # Probabilities are positive weights, log-probabilities are not.
            made = [
                interface.candidate(policy, each, float(np.exp(s)))
                for each, s in zip(group, sure, strict=True)
            ]
            count = max(1, int(np.ceil(self.keep * len(made))))
            kept = sorted(np.argsort(-sure, kind="stable")[:count].tolist())
            candidates.append(made)
            voters.append([made[i] for i in kept])
        chosen = voting.elect(policy.task, problems, voters, voting.by_score)
        return interface.results(problems, chosen, candidates, [m.spent for m in meters])


def settled(votes: Sequence[int]) -> float:
    """Returns the probability that the first answer is truly more frequent than the second.

    With v1 and v2 votes and a uniform prior, the share of the first among the two has the
    distribution Beta(v1 + 1, v2 + 1), which lies above 1/2 with this probability
    (arXiv:2305.11860, eq. 2).

    Args:
      votes: the votes of each answer.
    """
    first, second, *_ = [*sorted(votes, reverse=True), 0, 0]
    return float(1 - special.betainc(first + 1, second + 1, 0.5))


def weakest_stretch(completion: Completion, window: int) -> float:
    """Returns the lowest mean log-probability of `window` tokens in a row; NaN without any."""
    if completion.logprobs is None or not len(completion.logprobs):
        return float("nan")
    values = np.asarray(completion.logprobs, float)
    size = min(window, len(values))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return float(((sums[size:] - sums[:-size]) / size).min())


def _rounds(
    rule: AdaptiveVote | ConfidentVote,
    policy: Policy,
    problems: Sequence[Problem],
    budget: int,
    seed: int,
) -> tuple[list[list[Completion]], list[Meter]]:
    """Samples in rounds; a problem whose vote is settled takes no part in further rounds."""
    prompts = [policy.template(problem.question) for problem in problems]
    meters = interface.meters(policy, None, interface.prompt_lengths(policy, prompts))
    drawn: list[list[Completion]] = [[] for _ in problems]
    open_, taken = list(range(len(problems))), 0
    while open_ and taken < budget:
        count = min(rule.round if taken else rule.first, budget - taken)
        asked = [prompts[i] for i in open_]
        counters = [meters[i] for i in open_]
        groups = _more(policy, asked, taken, count, counters, fold_seed(seed, "round", taken))
        for i, group in zip(open_, close_chains(policy, asked, groups, counters), strict=True):
            drawn[i] += group
        taken += count
        open_ = [
            i
            for i in open_
            if rule.confidence >= 1
            or settled(_votes(policy, problems[i], drawn[i])) < rule.confidence
        ]
    return drawn, meters


def _more(
    policy: Policy,
    prompts: Sequence[str],
    taken: int,
    count: int,
    meters: Sequence[Meter],
    seed: int,
) -> list[list[Completion]]:
    """Samples `count` more completions of each prompt and counts them."""
    if not isinstance(policy.generator, SampleBank):
        return interface.sample(policy, prompts, count, meters, seed=seed)
    # A bank always hands out its first samples: those that were taken already are left out.
    groups = policy.generator.generate(
        prompts, num_samples=taken + count, max_new_tokens=policy.max_new_tokens,
        sampling=policy.sampling, seed=seed,
    )  # fmt: skip
    groups = [group[taken:] for group in groups]
    for meter, group, length in zip(
        meters, groups, interface.prompt_lengths(policy, prompts), strict=True
    ):
        for completion in group:
            meter.generate(len(completion.token_ids), length)
    return groups


def _votes(policy: Policy, problem: Problem, drawn: Sequence[Completion]) -> list[int]:
    """Returns the votes of each answer so far."""
    found: list[Candidate] = [interface.candidate(policy, each) for each in drawn]
    answers = [each.answer for each in found if each.answer]
    (groups,) = policy.task.group_answers([problem], [answers])
    return np.unique(groups, return_counts=True)[1].tolist() if groups else []


def _check_settings(confidence: float, first: int, more: int) -> None:
    if not 0 < confidence <= 1 or first < 1 or more < 1:
        raise ValueError(
            f"confidence={confidence} must be above 0 and at most 1, first={first} and"
            f" round={more} at least 1"
        )
