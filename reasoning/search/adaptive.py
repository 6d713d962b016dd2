"""Compute-optimal search: choose method and budget for each problem by its estimated difficulty.

Following Snell et al. 2024 (arXiv:2408.03314, section 3), a verifier scores a few pilot samples of
a problem, and their mean score puts the problem into a difficulty bin. Calibration problems show
which method does best in each bin. Unlike the paper, this module also chooses a budget for each
bin, such that the mean over all problems stays within the given budget: hard problems get the
compute that easy ones do not need.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

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
    """A method at a budget: one choice that a plan can make for a bin.

    Attributes:
      method: the method's name.
      budget: its budget, in responses.
    """

    method: str
    budget: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of one arm on the n calibration problems.

    Attributes:
      correct: `[n]`, whether each answer was correct.
      tokens: `[n]`, generated tokens for each problem.
    """

    correct: np.ndarray
    tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """The arms to use at one budget.

    Attributes:
      pilots: samples of each problem that estimate its difficulty; 0 if all problems get the same
        arm.
      edges: ascending difficulties that separate the bins.
      arms: one arm for each bin, easiest bin first.
    """

    pilots: int
    edges: tuple[float, ...]
    arms: tuple[Arm, ...]


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """A `SearchMethod` that follows the plan for the largest planned budget within the given one.

    Attributes:
      methods: maps a name to a method and its verifier; None stands for the verifier that scores
        the pilots. Methods that choose among samples (those with `pick`) reuse the pilots.
      plans: maps a budget to its plan; see `fit_plans`.
      aggregation: how step scores are combined; see `reasoning.verifiers.aggregate`.
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
        """Answers each problem; see `SearchMethod`. The verifier scores the pilots."""
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
            pilots = _Pilots(
                [drawn[m] for m in members],
                [scored[m] for m in members],
                [meters[m] for m in members],
            )
            asked = [problems[m] for m in members]
            results = self._follow(policy, verifier, arm, asked, pilots, seed)
            found |= zip(members, results, strict=True)
        return [found[i] for i in range(len(problems))]

    def describe(self) -> dict[str, Any]:
        """Returns the plans in a form that JSON can store."""
        return {str(budget): dataclasses.asdict(plan) for budget, plan in self.plans.items()}

    def _run(
        self,
        policy: Policy,
        verifier: Verifier | None,
        arm: Arm,
        problems: Sequence[Problem],
        seed: int,
    ) -> list[SearchResult]:
        """Runs an arm's method on some problems, from scratch."""
        method, own = self.methods[arm.method]
        return method(policy, own or verifier, problems, arm.budget, seed=seed)

    def _follow(
        self,
        policy: Policy,
        verifier: Verifier,
        arm: Arm,
        problems: Sequence[Problem],
        pilots: "_Pilots",
        seed: int,
    ) -> list[SearchResult]:
        """Returns an arm's results for the problems of one bin, with the pilots' cost included."""
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
    """The pilot samples of some problems, scored, with meters that have counted their cost."""

    completions: list[list[Completion]]
    candidates: list[list[Candidate]]
    meters: list[Meter]


def difficulty(pilots: Sequence[Sequence[Candidate]]) -> np.ndarray:
    """Returns one minus the mean score of each problem's pilots, `[problems]`."""
    scores = [[cast(float, pilot.score) for pilot in each] for each in pilots]  # all are scored
    return np.array([1 - np.mean(each) for each in scores])


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
    """Returns the best plan for each budget, judged on the calibration problems.

    A plan maximizes accuracy subject to a limit on the mean number of generated tokens. The search
    uses a Lagrangian: for each price of a token, every bin takes the arm with the largest accuracy
    minus cost, and the best plan within the budget is kept over all prices.

    The best single arm for all problems wins unless the plan beats it by more than one standard
    error of their difference (Breiman et al., 1984). The plan is the best of very many, so its
    accuracy on the calibration problems is an overestimate.

    Args:
      outcomes: the results of each arm on the n calibration problems.
      difficulties: `[n]`, their difficulties; see `difficulty`.
      pilot_tokens: `[n]`, tokens that their pilots cost.
      pilots: pilot samples of each problem.
      extends_pilots: methods that count the pilots among their own samples.
      budgets: the budgets to plan for, in responses.
      unit_tokens: generated tokens that one unit of budget buys.
      num_bins: most bins; there are fewer if many difficulties are equal.

    Raises:
      ValueError: no arm fits in a budget.
    """
    # Each edge is a difficulty that occurs and is not the lowest, so no bin is empty.
    edges = np.quantile(difficulties, np.linspace(0, 1, num_bins + 1)[1:-1], method="higher")
    edges = np.unique(edges[edges > difficulties.min()])
    bins = np.searchsorted(edges, difficulties, side="right")
    num_bins = len(edges) + 1
    arms = list(outcomes)
    correct = np.array([outcomes[arm].correct for arm in arms], float)
    accuracy = np.stack([correct[:, bins == b].mean(1) for b in range(num_bins)], 1)

    def cost(arm: Arm) -> np.ndarray:
        """Returns the tokens of an arm together with its pilots, `[n]`."""
        own = outcomes[arm].tokens
        with_pilots = np.maximum(own, pilot_tokens)
        return with_pilots if arm.method in extends_pilots else own + pilot_tokens

    tokens = np.array([[cost(arm)[bins == b].mean() for b in range(num_bins)] for arm in arms])
    share = np.bincount(bins, minlength=num_bins) / len(bins)
    plans = {}
    for budget in budgets:
        allowed = budget * unit_tokens * 1.02  # The margin allows for noise in token counts.
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
                f"no calibrated arm fits in budget={budget} (responses of {unit_tokens:.0f}"
                " tokens): calibrate an arm with a budget of 1"
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
