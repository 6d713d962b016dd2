"""Effort and thinking budgets become routes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning import effort
from reasoning.effort import EFFORTS, Limits, decide, route_for, split_limit
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.route import LONG_CHAIN, SHORT_CHAIN, VOTE, Route, direct
from reasoning.router.rules import RulesPredictor


@given(st.integers(0, 4000), st.integers(0, 5000))
def test_more_effort_never_means_less_thinking(chain, budget):
    routes = [route_for(Limits(chain, samples=4), each, budget) for each in EFFORTS]
    spent = [route.budget * route.samples for route in routes]
    assert spent == sorted(spent) and routes[0] == direct()
    assert all(route.budget <= min(chain, budget) for route in routes)


def test_a_budget_of_zero_is_no_thinking():
    assert route_for(Limits(100), "high", 0) == direct()
    assert route_for(Limits(100), "high", 7) == Route(VOTE, 7, effort.HIGH_SAMPLES)
    assert route_for(Limits(100)) == Route(LONG_CHAIN, 100)


@pytest.mark.parametrize(("level", "budget"), [("max", None), ("", 3), ("low", -1), ("low", True)])
def test_wrong_settings_are_refused(level, budget):
    with pytest.raises(ValueError, match="reasoning_effort|thinking_token_budget"):
        route_for(Limits(100), level, budget)


def test_the_router_chooses_when_the_client_says_nothing():
    router = PredictiveRouter(RulesPredictor((direct(), Route(LONG_CHAIN, 64))))
    assert decide("hello", router, Limits(64)).route == direct()
    hard = "Compute 3 + 4 + 5 + 6 + 7 + 8, then how many remain after 2 - 1?"
    assert decide(hard, router, Limits(64)).route == Route(LONG_CHAIN, 64)
    bounded = decide(hard, router, Limits(64), thinking_token_budget=10)
    assert bounded.route == Route(LONG_CHAIN, 10) and "bounded" in bounded.why
    assert decide("hello", router, Limits(64), "medium").route == Route(LONG_CHAIN, 64)
    with pytest.raises(ValueError, match="thinking_token_budget"):
        decide(hard, router, Limits(64), thinking_token_budget=-1)


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_the_answer_always_keeps_a_reserve(limit, reserve):
    chain, answer = split_limit(limit, reserve)
    assert chain + answer == limit and chain >= 0 and answer >= min(reserve, (limit + 1) // 2) > 0


def test_a_question_tells_a_trained_model_its_route():
    assert effort.asked("1 + 1?", direct()) == "1 + 1? Answer without thinking."
    assert effort.asked("1 + 1?", Route(SHORT_CHAIN, 24)) == "1 + 1? Answer within 24 tokens."
    assert effort.asked("1 + 1?", Route(LONG_CHAIN, 96)) == "1 + 1?"
