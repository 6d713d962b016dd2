"""Tests of the compute-optimal strategy: plans against brute force, and following a plan."""

import itertools

import numpy as np
import pytest

from reasoning.search.adaptive import Adaptive, Arm, Outcome, Plan, difficulty, fit_plans
from reasoning.search.beam import BeamSearch
from reasoning.search.best_of_n import BestOfN
from tests.reasoning.search.search_toy import PROBLEMS, ToyVerifier, random_scores, toy_policy

ARMS = [Arm("best_of_n", 1), Arm("best_of_n", 8), Arm("beam", 4)]
PILOTS = 2


def world(seed, n=60):
    rng = np.random.default_rng(seed)
    difficulties = np.sort(rng.uniform(size=n))
    outcomes = {}
    for arm in ARMS:
        chance = np.clip(1.1 - difficulties + 0.08 * np.log2(arm.budget), 0, 1)
        tokens = rng.uniform(0.8, 1.2, n)
        tokens *= 10.0 * arm.budget / tokens.mean()
        outcomes[arm] = Outcome(rng.uniform(size=n) < chance, tokens)
    return outcomes, difficulties, np.full(n, 10.0 * PILOTS)


def fit(world_, budgets=(1, 2, 4, 8), bins=2):
    outcomes, difficulties, pilots = world_
    return fit_plans(
        outcomes, difficulties, pilots, pilots=PILOTS, extends_pilots=["best_of_n"],
        budgets=budgets, unit_tokens=10.0, num_bins=bins,
    )  # fmt: skip


def value(plan, world_, bins=2):
    """Accuracy and mean tokens of a plan on the calibration problems, written out."""
    outcomes, difficulties, pilot_tokens = world_
    correct, tokens = [], []
    for i, hard in enumerate(difficulties):
        arm = plan.arms[sum(hard >= edge for edge in plan.edges)]
        correct.append(outcomes[arm].correct[i])
        cost = outcomes[arm].tokens[i]
        if plan.pilots:
            extends = arm.method == "best_of_n"
            cost = max(cost, pilot_tokens[i]) if extends else cost + pilot_tokens[i]
        tokens.append(cost)
    return np.mean(correct), np.mean(tokens)


@pytest.mark.parametrize("seed", range(6))
def test_plans_keep_to_the_budget_and_no_single_arm_is_better(seed):
    made = world(seed)
    for budget, plan in fit(made).items():
        accuracy, tokens = value(plan, made)
        assert tokens <= budget * 10 * 1.02
        for arm in ARMS:
            if made[0][arm].tokens.mean() <= budget * 10 * 1.02:
                assert accuracy >= made[0][arm].correct.mean()


def test_with_all_compute_the_plan_is_the_best_of_all_plans_where_that_is_no_luck():
    """Against every plan, and the rule of one standard error written out."""
    kinds = set()
    for seed in range(24):
        made = world(seed)
        outcomes, difficulties, _ = made
        plan = fit(made, budgets=(1000,))[1000]
        edges = (float(np.quantile(difficulties, 0.5, method="higher")),)
        best = max(
            (Plan(PILOTS, edges, arms) for arms in itertools.product(ARMS, repeat=2)),
            key=lambda each: value(each, made)[0],
        )
        single = max(outcomes.values(), key=lambda each: each.correct.mean()).correct
        hard = difficulties >= edges[0]
        of_plan = np.where(hard, *(outcomes[arm].correct for arm in best.arms[::-1]))
        gains = of_plan.astype(float) - single
        error = np.sqrt(((gains - gains.mean()) ** 2).sum() / (len(gains) - 1) / len(gains))
        no_luck = gains.mean() > error
        assert bool(plan.pilots) == no_luck
        assert value(plan, made)[0] == (value(best, made)[0] if no_luck else single.mean())
        kinds.add(bool(plan.pilots))
    assert kinds == {True, False}


def test_hard_problems_get_what_easy_ones_do_not_need():
    n = 40
    easy = np.arange(n) < n // 2
    outcomes = {
        ARMS[0]: Outcome(easy, np.full(n, 10.0)),
        ARMS[1]: Outcome(np.ones(n, bool), np.full(n, 80.0)),
    }
    plan = fit((outcomes, np.linspace(0, 1, n), np.full(n, 20.0)), budgets=(6,))[6]
    assert plan.arms == (ARMS[0], ARMS[1])


def test_problems_that_look_alike_are_in_one_bin():
    outcomes, _, pilots = world(0)
    for difficulties in (np.full(60, 0.3), np.repeat([0.1, 0.9], 30)):
        for plan in fit((outcomes, difficulties, pilots), bins=3).values():
            assert len(plan.arms) == len(plan.edges) + 1 <= len(set(difficulties))


def test_no_arm_within_the_budget_is_an_error():
    outcomes, difficulties, pilots = world(0)
    with pytest.raises(ValueError, match=r"no calibrated arm fits in budget=1 \("):
        fit(({ARMS[1]: outcomes[ARMS[1]]}, difficulties, pilots), budgets=(1,))


def test_problems_are_treated_by_their_difficulty_and_pilots_are_part_of_the_samples():
    scores = ToyVerifier(random_scores(0))
    policy = toy_policy()
    pilots = BestOfN()(policy, scores, PROBLEMS, PILOTS)
    edge = float(difficulty([r.candidates for r in pilots]).min()) + 1e-9
    methods = {"best_of_n": (BestOfN(), None), "beam": (BeamSearch(), None)}
    for arms, sampled in [
        ((ARMS[0], ARMS[1]), [PILOTS * 3, 8 * 3]),
        ((ARMS[2], ARMS[2]), None),
    ]:
        policy = toy_policy()
        plans = {1: Plan(PILOTS, (edge,), arms)}
        results = Adaptive(methods, plans)(policy, scores, PROBLEMS, 3)
        spent = [r.spent.generated_tokens for r in results]
        assert sum(spent) == policy.generator.sampled.sum()
        if sampled:
            assert set(spent) <= set(sampled)
            assert all(len(r.candidates) in (PILOTS, 8) for r in results)
        assert [r.problem for r in results] == PROBLEMS


def test_a_uniform_plan_draws_no_pilots():
    scores, policy = ToyVerifier(random_scores(0)), toy_policy()
    methods = {"best_of_n": (BestOfN(), None)}
    adaptive = Adaptive(methods, {1: Plan(0, (), (ARMS[0],)), 8: Plan(0, (), (ARMS[1],))})
    results = adaptive(policy, scores, PROBLEMS, 7)  # the plan for 1 is the last within 7
    # It estimates nothing, and so needs no verifier but the method's own.
    alone = Adaptive({"best_of_n": (BestOfN(), scores)}, adaptive.plans)
    again = alone(toy_policy(), None, PROBLEMS, 7)
    assert [r.response for r in again] == [r.response for r in results]
    assert [r.spent.generated_tokens for r in results] == [3, 3]
    with pytest.raises(ValueError, match="budget=0"):
        adaptive(policy, scores, PROBLEMS, 0)


def test_an_arm_with_a_verifier_of_its_own_chooses_by_it_among_the_same_samples():
    estimates, own = ToyVerifier(random_scores(0)), ToyVerifier(random_scores(1))
    alone = BestOfN()(toy_policy(), own, PROBLEMS, PILOTS)
    other = BestOfN()(toy_policy(), estimates, PROBLEMS, PILOTS)
    plan = Plan(PILOTS, (), (Arm("best_of_n", 1),))
    results = Adaptive({"best_of_n": (BestOfN(), own)}, {1: plan})(
        toy_policy(), estimates, PROBLEMS, 1
    )
    assert [r.response for r in results] == [r.response for r in alone]
    assert [r.response for r in results] != [r.response for r in other]
    for result, single in zip(results, alone):
        assert result.spent.generated_tokens == single.spent.generated_tokens
        assert result.spent.verifier_calls == 2 * PILOTS  # by both verifiers
