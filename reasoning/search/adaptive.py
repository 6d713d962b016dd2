"""Compute-optimal search: method and budget chosen for each problem by its estimated difficulty.

Snell et al. 2024 (arXiv:2408.03314, section 3): difficulty is what a verifier thinks of a few pilot
samples, binned; which method does best in a bin is found out on calibration problems. Here a bin's
budget is chosen, too, so that the mean over problems keeps to the budget: what easy problems do not
need, hard ones get.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reasoning.budget import Meter
from reasoning.candidate import Candidate
from reasoning.generation.generator import Completion, fold_seed
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.best_of_n import draw_samples, score_samples, scored_samples
from reasoning.search.interface import Policy, SearchMethod, SearchResult
from reasoning.verifiers import Verifier


@dataclasses.dataclass(frozen=True)
class Arm:
    """A method, by name, at a budget."""

    method: str
    budget: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an arm did on the n calibration problems: correct `[n]`, generated tokens `[n]`."""

    correct: np.ndarray
    tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done at one budget.

    Attributes:
      pilots: samples from which difficulty is estimated; 0 where all problems get the one arm.
      edges: ascending difficulties between bins.
      arms: one for each bin, easiest first.
    """

    pilots: int
    edges: tuple[float, ...]
    arms: tuple[Arm, ...]


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """Follows the plan of the largest planned budget that is within the one given.

    Attributes:
      methods: name -> method and its verifier, None for the one that scores the pilots. Methods
        that choose among samples (have `pick`) go on from the pilots.
      plans: budget -> plan, see `fit_plans`.
      aggregation: how step scores become one.
    """

    methods: Mapping[str, tuple[SearchMethod, Verifier | None]]
    plans: Mapping[int, Plan]
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
        """See `SearchMethod`; the verifier scores the pilots."""
        interface.check_budget(budget, "adaptive", least=min(self.plans))
        plan = self.plans[max(planned for planned in self.plans if planned <= budget)]
        if not plan.pilots:
            return self._run(policy, verifier, plan.arms[0], problems, seed)
        verifier = interface.require_verifier(verifier, "adaptive")
        drawn, meters = draw_samples(policy, verifier, problems, plan.pilots, seed)
        scored = score_samples(policy, verifier, problems, drawn, meters, self.aggregation)
        bins = np.searchsorted(plan.edges, difficulty(scored), side="right")
        found: dict[int, SearchResult] = {}
        for i, arm in enumerate(plan.arms):
            members = np.flatnonzero(bins == i).tolist()
            if not members:
                continue
            pilots = _Pilots(*([each[m] for m in members] for each in (drawn, scored, meters)))
            asked = [problems[m] for m in members]
            results = self._follow(policy, verifier, arm, asked, pilots, seed)
            found |= zip(members, results, strict=True)
        return [found[i] for i in range(len(problems))]

    def describe(self) -> dict[str, Any]:
        """The plans, JSON-able."""
        return {str(budget): dataclasses.asdict(plan) for budget, plan in self.plans.items()}

    def _run(self, policy, verifier, arm: Arm, problems, seed) -> list[SearchResult]:
        method, own = self.methods[arm.method]
        return method(policy, own or verifier, problems, arm.budget, seed=seed)

    def _follow(
        self, policy, verifier, arm: Arm, problems, pilots: "_Pilots", seed
    ) -> list[SearchResult]:
        """An arm's results for problems of one bin, the pilots' cost included."""
        method, own = self.methods[arm.method]
        if not hasattr(method, "pick"):
            results = self._run(policy, verifier, arm, problems, fold_seed(seed, "arm"))
            return [
                dataclasses.replace(result, spent=result.spent + meter.spent)
                for result, meter in zip(results, pilots.meters, strict=True)
            ]
        spent = [meter.spent for meter in pilots.meters]
        candidates = pilots.candidates
        if own is not None:
            meters = [Meter(verifier=own.config) for _ in problems]
            candidates = score_samples(
                policy, own, problems, pilots.completions, meters, self.aggregation
            )
            spent = [a + meter.spent for a, meter in zip(spent, meters, strict=True)]
        if (missing := arm.budget - len(candidates[0])) > 0:
            more, meters = scored_samples(
                policy,
                own or verifier,
                problems,
                missing,
                self.aggregation,
                fold_seed(seed, "more"),
            )
            candidates = [a + b for a, b in zip(candidates, more, strict=True)]
            spent = [a + meter.spent for a, meter in zip(spent, meters, strict=True)]
        picked = method.pick(policy, problems, candidates)
        return interface.results(problems, picked, candidates, spent)


@dataclasses.dataclass(frozen=True)
class _Pilots:
    """The pilot samples of some problems, and what they cost."""

    completions: list[list[Completion]]
    candidates: list[list[Candidate]]
    meters: list[Meter]


def difficulty(pilots: Sequence[Sequence[Candidate]]) -> np.ndarray:
    """One minus the mean score of each problem's pilots."""
    return np.array([1 - np.mean([candidate.score for candidate in each]) for each in pilots])


def fit_plans(
    outcomes: Mapping[Arm, Outcome],
    difficulties: np.ndarray,
    pilot_tokens: np.ndarray,
    *,
    pilots: int,
    extends_pilots: Sequence[str],
    budgets: Sequence[int],
    unit_tokens: float,
    num_bins: int = 3,
) -> dict[int, Plan]:
    """The best plan for each budget, as far as the calibration problems tell.

    Maximizes accuracy subject to the mean of generated tokens by a Lagrangian: for every price of a
    token each bin takes the arm with the most accuracy less cost, and of all prices the best plan
    within the budget is kept. The best single arm for all problems is preferred unless that plan is
    better by more than one standard error of their difference (Breiman et al., 1984): a plan of
    several bins is chosen among so many that the best of them looks better than it is.

    Args:
      difficulties, pilot_tokens: `[n]`, of the calibration problems, and what their pilots cost.
      extends_pilots: methods for which the pilots are part of the arm's samples.
      unit_tokens: generated tokens that one unit of budget buys.
      num_bins: at most; there are fewer where difficulties are the same.

    Raises:
      ValueError: no arm fits in a budget.
    """
    # Edges are difficulties that occur, and not the least: so no bin is empty.
    edges = np.quantile(difficulties, np.linspace(0, 1, num_bins + 1)[1:-1], method="higher")
    edges = np.unique(edges[edges > difficulties.min()])
    bins = np.searchsorted(edges, difficulties, side="right")
    num_bins = len(edges) + 1
    arms = list(outcomes)
    correct = np.array([outcomes[arm].correct for arm in arms], float)
    accuracy = np.stack([correct[:, bins == b].mean(1) for b in range(num_bins)], 1)

    def cost(arm):
        own = outcomes[arm].tokens
        with_pilots = np.maximum(own, pilot_tokens)
        return with_pilots if arm.method in extends_pilots else own + pilot_tokens

    tokens = np.array([[cost(arm)[bins == b].mean() for b in range(num_bins)] for arm in arms])
    share = np.bincount(bins, minlength=num_bins) / len(bins)
    plans = {}
    for budget in budgets:
        allowed = budget * unit_tokens * 1.02  # Token counts are noisy.
        single = max(
            (
                (each.correct.mean(), -each.tokens.mean(), i)
                for i, each in enumerate(outcomes.values())
                if each.tokens.mean() <= allowed
            ),
            default=None,
        )
        if single is None:
            raise ValueError(
                f"no arm was calibrated that costs at most budget={budget} responses of"
                f" {unit_tokens:.0f} tokens: calibrate one with a budget of 1"
            )
        uniform = single[2]
        plans[budget] = Plan(0, (), (arms[uniform],))
        best = None
        for price in np.concatenate([[0.0], np.geomspace(1e-6, 1e-1, 200)]):
            chosen = (accuracy - price * tokens).argmax(0)
            spent = (tokens[chosen, np.arange(num_bins)] * share).sum()
            score = ((accuracy[chosen, np.arange(num_bins)] * share).sum(), -spent)
            if spent <= allowed and (best is None or score > best[0]):
                best = (score, chosen)
        if best is not None:
            chosen = best[1]
            gain = correct[chosen[bins], np.arange(len(bins))] - correct[uniform]
            if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
                plans[budget] = Plan(
                    pilots, tuple(map(float, edges)), tuple(arms[i] for i in chosen)
                )
    return plans
