"""The kinds that learn, their figures, and files of outcomes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.jobs.routing.router_head import train_head
from reasoning import router
from reasoning.router import fitting, metrics
from reasoning.router.calibration import Outcomes
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.hidden import HiddenPredictor
from reasoning.router.outcomes import OutcomeTable, read_outcomes
from reasoning.router.predictor import Predictions
from reasoning.router.route import LONG_CHAIN, Route, direct

ROUTES = (direct(), Route(LONG_CHAIN, 96))


def table(n, seed=0):
    """Facts, which the direct route knows, and sums, which need a chain."""
    rng = np.random.default_rng(seed)
    easy = rng.random(n) < 0.5
    places = ("Peru", "Mali", "Togo", "Laos")
    queries = [
        f"What is the capital of {rng.choice(places)}?"
        if fact
        else "Compute " + " + ".join(map(str, rng.integers(1, 9, rng.integers(3, 8)))) + "."
        for fact in easy
    ]
    chance = np.stack([np.where(easy, 0.95, 0.05), np.full(n, 0.93)], 1)
    correct = (rng.random((n, 2)) < chance).astype(float)
    cost = np.tile([10.0, 60.0], (n, 1))
    return OutcomeTable(tuple(queries), tuple(r.name for r in ROUTES), Outcomes(correct, cost))


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_a_kind_learns_what_words_tell_and_comes_back_from_its_files(kind, tmp_path):
    known, fresh = table(300), table(200, seed=1)
    fitted = fitting.fit_router(
        fitting.FITS[kind], ROUTES, known, held_out=0.4, promise=None, seed=0
    )
    found = metrics.report(fresh.outcomes, fitted.predictor.predict(fresh.questions))
    assert found["apgr"]["mean"] > 0.7 and found["ece"] < 0.1
    fitted.save(tmp_path, kind)
    loaded = router.load(tmp_path)
    for query in (*fresh.questions[:20], "", "hello"):
        assert loaded.choose(query) == fitted.choose(query)
    assert loaded.choose("What is the capital of Mali?").route == ROUTES[0]
    assert loaded.choose("Compute 3 + 4 + 5 + 6.").route == ROUTES[1]


def test_the_head_learns_and_comes_back_from_its_files(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    outcomes = Outcomes(np.stack([x[:, 0] > 0, np.ones(200)], 1).astype(float), np.ones((200, 2)))
    states = {str(i): row for i, row in enumerate(x)}
    probe = {"hello": x[0]}

    def read(queries):
        return np.stack([(states | probe)[query] for query in queries])

    fitted = HiddenPredictor(ROUTES, read, train_head(x, outcomes, 0))
    predicted = fitted.predict(list(states))
    assert ((predicted.accuracy[:, 0] > 0.5) == (x[:, 0] > 0)).mean() > 0.95
    PredictiveRouter(fitted).save(tmp_path, "hidden")
    loaded = router.load(tmp_path, features=read)
    again = loaded.predictor.predict(list(states))
    np.testing.assert_allclose(again.accuracy, predicted.accuracy, rtol=1e-6)
    with pytest.raises(ValueError, match="features"):
        router.load(tmp_path)
    # Another dtype rounds otherwise; another model gives other features, or a different number.
    router.load(tmp_path, features=lambda queries: read(queries) * 1.01)
    for other in (lambda queries: -read(queries), lambda queries: read(queries)[:, :3]):
        with pytest.raises(ValueError, match="another model or template"):
            router.load(tmp_path, features=other)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4))
def test_the_oracle_is_best_and_random_recovers_half(seed, routes):
    rng = np.random.default_rng(seed)
    accuracy = np.linspace(0.2, 0.9, routes)
    outcomes = Outcomes(
        (rng.random((400, routes)) < accuracy).astype(float),
        np.tile(np.linspace(10, 100, routes), (400, 1)),
    )
    made = OutcomeTable(("",) * 400, tuple(map(str, range(routes))), outcomes)
    guess = Predictions(rng.random((400, routes)), outcomes.cost)
    found = fitting.figures(made, {"guess": guess}, seed)
    assert found["oracle"]["apgr"]["mean"] >= found["guess"]["apgr"]["mean"]
    assert found["random"]["apgr"]["mean"] == pytest.approx(0.5, abs=0.12)
    low, high = found["random"]["apgr"]["ci95"]
    assert low <= found["random"]["apgr"]["mean"] <= high


def test_apgr_and_cpt_are_those_of_routellm():
    """Ten questions, ranked perfectly: the strong model adds something to the first five only."""
    correct = np.stack([np.r_[np.zeros(5), np.ones(5)], np.ones(10)], 1)
    gain = Predictions(np.stack([np.linspace(0, 0.9, 10), np.ones(10)], 1), np.ones((10, 2)))
    found = metrics.report(Outcomes(correct, np.tile([1.0, 10.0], (10, 1))), gain, strong=1)
    # PGR rises from 0 to 1 over the first half of the calls and stays there.
    assert found["apgr"]["mean"] == pytest.approx(0.75, abs=0.01)
    for level in (50, 80, 95):
        assert found[f"cpt{level}"]["mean"] == pytest.approx(level / 200, abs=0.01)


def test_the_kept_cost_is_the_least_that_keeps_nearly_all_of_the_accuracy():
    """As above: nine of ten right answers are too few, so five calls are needed, of cost 10."""
    correct = np.stack([np.r_[np.zeros(5), np.ones(5)], np.ones(10)], 1)
    gain = Predictions(np.stack([np.linspace(0, 0.9, 10), np.ones(10)], 1), np.ones((10, 2)))
    outcomes = Outcomes(correct, np.tile([1.0, 10.0], (10, 1)))
    kept = metrics.report(outcomes, gain, strong=1)["kept_cost"]
    assert kept["mean"] == pytest.approx((5 * 10 + 5 * 1) / 100)
    assert kept["ci95"][0] < kept["mean"] < kept["ci95"][1] <= 1
    # A router that knows nothing needs the strong route for nearly all questions.
    blind = Predictions(np.full((10, 2), 0.5), np.ones((10, 2)))
    assert metrics.report(outcomes, blind, strong=1)["kept_cost"]["mean"] == 1


def test_the_calibration_error_is_the_distance_of_prediction_and_truth():
    right = np.r_[np.zeros(50), np.ones(50)][:, None]
    assert metrics.expected_calibration_error(right, right) == 0
    wrong_by = metrics.expected_calibration_error(np.ones((100, 1)), np.full((100, 1), 0.7))
    assert wrong_by == pytest.approx(0.3)


def test_outcomes_are_read_in_both_forms(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    flat = {"question": "a", "x_correct": True, "x_tokens": 4, "y_correct": 0.5}
    nested = {
        "question": "b",
        "outcomes": {"x": {"correct": 0, "tokens": 3}, "y": {"correct": 1, "tokens": 9}},
    }
    path.write_text("\n".join(map(json.dumps, (flat, nested))))
    found = read_outcomes(path, {"y": 7})
    assert found.names == ("x", "y") and found.questions == ("a", "b")
    np.testing.assert_array_equal(found.outcomes.correct, [[1, 0.5], [0, 1]])
    np.testing.assert_array_equal(found.outcomes.cost, [[4, 7], [3, 9]])
    assert read_outcomes(path, names=["x"]).names == ("x",)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"question": 5, "x_correct": 1}, "question"),
        ({"question": "a"}, "no outcomes"),
        ({"question": "a", "x_correct": 2, "x_tokens": 1}, "correct=2"),
        ({"question": "a", "x_correct": "yes", "x_tokens": 1}, "correct='yes'"),
        ({"question": "a", "x_correct": 1}, "config.costs"),
        ({"question": "a", "x_correct": 1, "x_tokens": -1}, "tokens=-1"),
        ({"question": "a", "outcomes": [1]}, "outcomes"),
        ({"question": "a", "z_correct": 1, "z_tokens": 1}, "no outcome of 'x'"),
    ],
)
def test_a_wrong_line_is_named(line, told, tmp_path):
    path = tmp_path / "outcomes.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(ValueError, match=told) as error:
        read_outcomes(path, names=["x"])
    assert f"{path}:1" in str(error.value) and "\n" not in str(error.value)
