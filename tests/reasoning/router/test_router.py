"""The rules, promises and saved routers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning import router
from reasoning.router.calibration import ALWAYS_REFERENCE, Calibration, Outcomes, loss_p_value
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.predictor import Predictions, price_choice
from reasoning.router.route import (
    DIRECT,
    LONG_CHAIN,
    SHORT_CHAIN,
    VOTE,
    Promise,
    Route,
    direct,
)
from reasoning.router.rules import RulesPredictor

ROUTES = (direct(), Route(SHORT_CHAIN, 32), Route(LONG_CHAIN, 128), Route(VOTE, 128, 8))
HARD = (
    "A train leaves at 9:40 and travels 120 miles at 45 miles per hour; another leaves at 10:15 and"
    " travels 80 miles at 60 miles per hour. If each stops 3 times for 4 minutes, how much later"
    " does the first arrive, and what is their average speed?"
)


def world(rng, n):
    """Synthetic queries: their difficulty, the outcomes of ROUTES, and noisy predictions."""
    difficulty = rng.uniform(0, 1, n)
    reach = np.array([0.3, 0.6, 0.9, 0.95])
    chance = 1 / (1 + np.exp(-12 * (reach - difficulty[:, None])))
    correct = (rng.uniform(size=(n, 4)) < chance).astype(float)
    cost = np.array([10, 40, 120, 900]) * rng.uniform(0.7, 1.3, (n, 4))
    predicted = np.clip(chance + rng.normal(0, 0.1, (n, 4)), 0, 1)
    return Outcomes(correct, cost), Predictions(predicted, np.tile([10.0, 40, 120, 900], (n, 1)))


class Fixed:
    """A predictor whose queries are row numbers of given predictions."""

    routes = ROUTES

    def __init__(self, predictions):
        self._predictions = predictions

    def predict(self, queries):
        rows = [int(query) for query in queries]
        return Predictions(self._predictions.accuracy[rows], self._predictions.cost[rows])

    def explain(self, query):
        return f"row {query}"

    def save(self, directory):
        raise NotImplementedError


def test_hello_is_answered_directly_and_a_hard_question_with_a_long_chain():
    rules = PredictiveRouter(RulesPredictor(ROUTES))
    hello, hard = rules.choose("hello"), rules.choose(HARD)
    assert hello.route == ROUTES[0] and "small talk" in hello.why
    assert hard.route.kind in (LONG_CHAIN, VOTE) and hard.route.name in hard.why
    assert set(hello.accuracy) == set(hello.cost) == {route.name for route in ROUTES}


@pytest.mark.parametrize("query", ["", " ", "\n", "🙂" * 50, "1" * 5000, "\x00", "a\ud800b"])
def test_rules_choose_for_any_text(query):
    decision = PredictiveRouter(RulesPredictor(ROUTES)).choose(query)
    assert decision.route in ROUTES
    assert all(0 <= p <= 1 for p in decision.accuracy.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_a_lower_price_never_chooses_a_worse_or_a_cheaper_route(seed, prices):
    rng = np.random.default_rng(seed)
    accuracy, cost = rng.uniform(size=(20, 4)), rng.uniform(1, 100, (20, 4))
    rows, before = np.arange(20), None
    for price in sorted(prices, reverse=True):
        chosen = price_choice(accuracy, cost, price)
        now = accuracy[rows, chosen], cost[rows, chosen]
        if before is not None:
            assert (now[0] >= before[0] - 1e-9).all() and (now[1] >= before[1] - 1e-9).all()
        before = now


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_a_stricter_promise_never_gives_a_cheaper_choice(seed):
    rng = np.random.default_rng(seed)
    outcomes, predictions = world(rng, 120)
    calibration = Calibration(outcomes, predictions, outcomes.best_route(), 300.0)
    fresh = world(rng, 60)[1]
    chooser = PredictiveRouter(Fixed(fresh), calibration)
    reachable = outcomes.correct[:, calibration.reference].mean()
    cheapest = outcomes.cost.min(1).mean() + 1
    steps = {
        "loss": [0.0, 0.02, 0.1, 0.4],
        "quality": [reachable, reachable * 0.8, 0.0],
        "cost": [1e6, 300, 100, cheapest],
    }
    for kind, values in steps.items():
        spent = []
        for value in values:  # From strict to lax.
            chosen = [chooser.choose(str(i), Promise(kind, value)) for i in range(60)]
            always = calibration.threshold(Promise(kind, value)) == ALWAYS_REFERENCE
            if not always:
                spent.append(sum(each.cost[each.route.name] for each in chosen))
        assert spent == sorted(spent, reverse=True), kind


@pytest.mark.parametrize(("allowed", "share"), [(0.03, 0.9), (0.1, 0.5)])
def test_the_promised_loss_is_kept_on_fresh_queries(allowed, share):
    """Of 200 calibrations, the true loss exceeds the promise in at most 5 %."""
    rng = np.random.default_rng(7)
    truth, predicted = world(rng, 50_000)
    exceeded, spent = 0, []
    for _ in range(200):
        rows = rng.integers(0, 50_000, 300)
        known = Predictions(predicted.accuracy[rows], predicted.cost[rows])
        calibration = Calibration(truth[rows], known, 3, 900.0)
        price = calibration.threshold(Promise("loss", allowed))
        if price == ALWAYS_REFERENCE:
            spent.append(1.0)
            continue
        every = np.arange(50_000)
        chosen = price_choice(predicted.accuracy, predicted.cost, price)
        lost = truth.correct[:, 3].mean() - truth.correct[every, chosen].mean()
        exceeded += lost > allowed
        spent.append(truth.cost[every, chosen].mean() / truth.cost[:, 3].mean())
    assert exceeded <= 10
    # The promise is not kept by spending everything.
    assert np.mean(spent) < share


def test_the_p_value_of_a_loss_is_valid_at_the_border():
    """If the mean loss equals what is allowed, at most 5 % of the p-values are below 5 %."""
    rng = np.random.default_rng(1)
    shares = (0.06, 0.9, 0.04)  # The mean loss is 0.02.
    p_values = [loss_p_value(rng.choice([1, 0, -1], 400, p=shares), 0.02) for _ in range(2000)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05
    assert np.mean([loss_p_value(rng.choice([1, 0, -1], 400, p=(0.02, 0.96, 0.02)), 0.05)
                    <= 0.05 for _ in range(200)]) > 0.8  # fmt: skip


def test_rules_are_saved_and_loaded(tmp_path):
    outcomes, predictions = world(np.random.default_rng(0), 50)
    calibration = Calibration(outcomes, predictions, 2, 120.0)
    saved = PredictiveRouter(RulesPredictor(ROUTES), calibration, Promise("loss", 0.2))
    saved.save(tmp_path, "rules")
    loaded = router.load(tmp_path)
    for query in ("hello", HARD, "2 + 2"):
        assert loaded.choose(query) == saved.choose(query)
        assert loaded.choose(query, Promise("cost", 80)) == saved.choose(query, Promise("cost", 80))


def test_a_damaged_or_missing_router_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="router.json"):
        router.load(tmp_path)
    PredictiveRouter(RulesPredictor(ROUTES)).save(tmp_path, "rules")
    about = json.loads((tmp_path / "router.json").read_text())
    for wrong in (about | {"kind": "magic"}, {"kind": "rules"}, about | {"routes": [{"x": 1}]}):
        (tmp_path / "router.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="magic|again"):
            router.load(tmp_path)


def test_promises_that_cannot_be_kept_are_refused():
    outcomes, predictions = world(np.random.default_rng(0), 50)
    calibration = Calibration(outcomes, predictions, 2, 120.0)
    for promise in (Promise("cost", 0.5), Promise("quality", 1.0)):
        with pytest.raises(ValueError, match=f"promise {promise.kind}"):
            PredictiveRouter(Fixed(predictions), calibration, promise)
    with pytest.raises(ValueError, match="held-out"):
        PredictiveRouter(RulesPredictor(ROUTES)).choose("hello", Promise("loss", 0.1))


@pytest.mark.parametrize(
    "text", ["", "loss", "loss=x", "speed=3", "loss=2", "loss=0.1@1", "cost=-1"]
)
def test_promises_are_parsed_strictly(text):
    with pytest.raises(ValueError, match="promise|confidence"):
        Promise.parse(text)
    assert Promise.parse("loss=0.02@0.9") == Promise("loss", 0.02, 0.9)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "guess"}, {"kind": DIRECT, "thinking": True, "budget": 5}, {"kind": LONG_CHAIN},
        {"kind": VOTE, "budget": 5}, {"kind": LONG_CHAIN, "budget": 5, "samples": 2},
        {"kind": DIRECT, "budget": 4, "thinking": False},
    ],
)  # fmt: skip
def test_routes_that_contradict_themselves_are_refused(fields):
    with pytest.raises(ValueError, match="kind|budget|samples|thinking"):
        Route(**fields)
