"""Claims are judged by their intervals over seeds: they hold, fail or stay open."""

import pytest

from launch.recipe import claims
from launch.recipe.claims import FAILS, HOLDS, OPEN


def stage(**metrics):
    names = {"math": "math/pass@1", "code": "code/pass@1", "logic": "logic/pass@1"}
    return {"metrics": {names.get(name, name): {"mean": x} for name, x in metrics.items()}}


def grown(math, tokens=20.0):
    """A seed's report in which R1-Zero gains `math` on sums."""
    return {
        "base": stage(math=0.2, code=0.1, logic=0.1, response_tokens=30.0),
        "r1_zero": stage(math=0.2 + math, code=0.9, logic=0.8, response_tokens=30.0 + tokens),
    }


def only(judged, name):
    (claim,) = [each for each in judged if each["claim"] == name]
    return claim


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.60, 0.62, 0.64), HOLDS),  # The interval is 62 +- 5.
        ((0.20, 0.45, 0.70), OPEN),  # The mean is above 40, its interval is not.
        ((0.30, 0.31, 0.32), FAILS),
        ((0.60,), OPEN),
    ],
)
def test_a_condition_is_judged_by_its_whole_interval(gains, verdict):
    claim = only(claims.judge([grown(each) for each in gains]), "F1")
    assert claim["verdict"] == verdict
    part = claim["parts"][0]
    assert part["verdict"] == verdict and part["least"] == 40
    assert part["mean"] == pytest.approx(100 * sum(gains) / len(gains))
    tokens = claim["parts"][-1]
    assert tokens["mean"] == pytest.approx(20)  # These are tokens, not points.


def test_one_failed_condition_fails_the_claim():
    """Chains that shrink, beside gains that hold."""
    claim = only(claims.judge([grown(0.6 + x, tokens=-5.0) for x in (0, 0.01, 0.02)]), "F1")
    assert [part["verdict"] for part in claim["parts"]] == [HOLDS, HOLDS, HOLDS, FAILS]
    assert claim["verdict"] == FAILS
    told = list(claims.lines([claim]))
    assert told[0].startswith("F1 does not hold: ")
    assert told[-1].endswith("-5.0 [-5.0, -5.0], wanted at least 0: does not hold")


def test_only_claims_whose_stages_have_run_are_judged():
    assert [each["claim"] for each in claims.judge([grown(0.5)])] == ["F1"]
    assert claims.judge([{"base": stage(math=0.1)}]) == []
    # One seed of two lacks the stage.
    assert claims.judge([grown(0.5), {"base": grown(0.5)["base"]}]) == []


def searched(**curves):
    """A seed's report of searches: method -> budget -> (accuracy, tokens)."""
    return {
        "search": [
            {"method": name, "budget": budget, "accuracy": {"mean": accuracy}, "tokens": tokens}
            for name, curve in curves.items()
            for budget, (accuracy, tokens) in curve.items()
        ]
    }


def test_searches_are_compared_at_one_budget_or_at_one_accuracy():
    report = searched(
        direct={1: (0.1, 10), 4: (0.1, 10)},
        cot={1: (0.5, 70), 4: (0.5, 70)},
        majority={1: (0.4, 70), 4: (0.6, 280)},
        weighted_majority={1: (0.4, 70), 4: (0.75, 280)},
        best_of_n_prm={1: (0.4, 70), 4: (0.7, 280)},
        beam={1: (0.45, 70), 2: (0.7, 100), 4: (0.8, 280)},
        adaptive={1: (0.5, 70), 4: (0.8, 200)},
        oracle={1: (0.4, 70), 4: (0.9, 100)},
    )
    judged = claims.judge([report, report])
    parts = [round(part["mean"], 6) for part in only(judged, "F5")["parts"]]
    # Beam search has best-of-N's 70 % with 100 of its 280 tokens.
    assert parts == [40, 10, 15, 2.8]
    # At 80 % beam search needs 280 tokens and the adaptive strategy 200; an oracle is no method.
    assert only(judged, "F9")["parts"][0]["mean"] == pytest.approx(1.4)
    never = searched(**{"beam": {4: (0.6, 280)}, "best_of_n_prm": {4: (0.7, 280)}})
    assert claims._fewer_tokens("beam", "best_of_n_prm")(never) == 0
    # Solving nothing with fewer tokens is no gain.
    nothing = searched(**{"beam": {1: (0.0, 50)}, "best_of_n_prm": {1: (0.0, 280)}})
    assert claims._fewer_tokens("beam", "best_of_n_prm")(nothing) == 0


def test_pruning_is_judged_where_dead_ends_can_be_seen():
    curves = {
        "best_of_n_prm": {1: (0.3, 50), 8: (0.7, 400)},
        "best_of_n_orm": {1: (0.3, 50), 8: (0.8, 400)},
        "beam": {2: (0.5, 90), 4: (0.75, 160), 8: (0.9, 380)},
        "lookahead": {4: (0.85, 200)},
    }
    report = searched(**curves)
    assert [each["claim"] for each in claims.judge([report] * 2)] == []
    for each in report["search"]:
        each["task"] = "tiny_countdown?low=4"
    (claim,) = claims.judge([report] * 2)
    assert claim["claim"] == "F10" and claim["verdict"] == FAILS
    values = [part["mean"] for part in claim["parts"]]
    # Beam search has 80 % only with 380 tokens.
    assert values == pytest.approx([400 / 160, 400 / 380, 2, 2])
    for each in report["search"]:
        each["task"] = "tiny_math?low=9&high=9"
    assert claims.judge([report] * 2) == []


def test_distillation_is_judged_on_the_mean_of_the_reasoning_tasks():
    arms = {
        "rl_only": stage(math=0.1, code=0.1, logic=0.1),
        "sequence": stage(math=0.9, code=0.6, logic=0.3),
        "distill_then_rl": stage(math=0.9, code=0.6, logic=0.0),
    }
    judged = claims.judge([{"distill": arms}] * 2)
    assert only(judged, "F3")["parts"][0]["mean"] == pytest.approx(50)
    assert only(judged, "F3")["verdict"] == HOLDS and only(judged, "F4")["verdict"] == FAILS
