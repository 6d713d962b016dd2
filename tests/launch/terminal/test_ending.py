"""The three sentences at the end of a run are true of any report, also of a bad outcome."""

import json
import re

import numpy as np
import pytest

from launch.parts.report import write_report
from launch.terminal.ending import Ran, difference, next_command, sentences
from reasoning.statistics import combine_seeds, mean_with_ci, share_with_ci

MACHINE = {"processor": "A processor", "cores": 2}
RAN = Ran(["base", "r1_zero"], [], 221.0, 210.0)


def metrics(hits, n=200, tokens=30.0, formatted=100, chat=60):
    return {
        "math/pass@1": share_with_ci(hits, n),
        "math/majority@64": share_with_ci(0, n),
        "chat/win_rate": share_with_ci(chat, 100),
        "format": share_with_ci(formatted, n),
        "response_tokens": mean_with_ci(tokens + np.arange(9) / 9),
    }


def report(base=None, zero=None, **fields):
    stages = {"base": base, "r1_zero": zero}
    stages = {n: {"wall_seconds": 1.0, "metrics": m} for n, m in stages.items() if m is not None}
    return {"seeds": 1, "machine": MACHINE, "config": {"seed": 0, "r1_zero": {"steps": 150}},
            "stages": stages} | fields  # fmt: skip


def test_a_clear_gain_is_told_with_its_figures():
    first, second, third = sentences(
        report(metrics(73), metrics(190, tokens=46, formatted=199)), RAN
    )
    assert first.startswith(
        "The stages base and r1_zero ran in 3 min 41 s on A processor (2 cores)"
    )
    assert "the first estimate was 3 min 30 s" in first
    assert second.startswith("Training helped: ")
    assert "rose from 36.5 % after base to 95.0 %" in second and "+58.5 points" in second
    assert "n = 200 problems" in second
    assert "longer (30.4 to 46.4 tokens)" in third and "more often" in third
    assert "nothing else that was measured became clearly worse" in third


@pytest.mark.parametrize(
    "before, after, told",
    [
        (73, 73, "did not clearly help"),
        (73, 80, "did not clearly help"),
        (73, 66, "did not clearly help"),
        (0, 0, "did not clearly help"),
        (200, 200, "did not clearly help"),
        (190, 73, "did harm: right answers to math fell from 95.0 % after base to 36.5 %"),
    ],
)
def test_no_gain_is_not_told_as_one(before, after, told):
    _, second, _ = sentences(report(metrics(before), metrics(after)), RAN)
    assert told in second and "helped:" not in second and "rose" not in second


def test_what_was_lost_is_named():
    _, _, third = sentences(
        report(metrics(73, chat=90), metrics(190, tokens=20, formatted=3, chat=20)), RAN
    )
    assert "shorter (30.4 to 20.4 tokens)" in third and "less often in the right format" in third
    assert "chat/win_rate (90.0 to 20.0 %) became clearly worse" in third
    assert "majority" not in third  # It is no other skill than math.


def test_every_change_of_two_shares_is_told_as_its_interval_says():
    """The words follow the interval, and the interval covers the truth as often as it says."""
    rng, covered, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        p, q = rng.uniform(0, 1, 2)
        before, after = (share_with_ci(int(rng.binomial(200, x)), 200) for x in (p, q))
        found, low, high = difference(after, before)
        assert low <= found <= high
        assert found == pytest.approx(after["mean"] - before["mean"])
        covered += low <= q - p <= high
        one = {"math/pass@1": before}, {"math/pass@1": after}
        _, second, third = sentences(report(*one), RAN)
        words = ["helped", "did harm", "did not clearly help"]
        truth = words[0] if low > 0 else words[1] if high < 0 else words[2]
        assert [word for word in words if f"{word}:" in second.replace("help: ", "help: ")] == [
            truth
        ]
        assert third == "Nothing else that was measured became clearly worse."
    assert 0.92 < covered / trials


def test_seeds_are_the_unit_where_there_are_several():
    few = [{k: v for k, v in metrics(hits).items()} for hits in (60, 90, 70)]
    many = [{k: v for k, v in metrics(hits).items()} for hits in (180, 195, 190)]
    combined = [
        {name: combine_seeds([each[name] for each in one]) for name in one[0]}
        for one in (few, many)
    ]
    _, second, _ = sentences(report(*combined, seeds=3), RAN)
    assert "helped" in second and "n = 3 training runs" in second
    wide = {name: figure | {"ci95": [None, None]} for name, figure in combined[1].items()}
    _, second, third = sentences(report(combined[0], wide), RAN)
    assert "did not clearly help" in second and "did not clearly change" in third


def test_a_report_that_was_written_says_the_same(tmp_path):
    whole = report(metrics(73), metrics(190))
    write_report(tmp_path / "report.json", whole)
    assert sentences(json.loads((tmp_path / "report.json").read_text()), RAN) == sentences(
        whole, RAN
    )


def test_one_stage_is_compared_with_nothing():
    first, second, third = sentences(report(metrics(73)), Ran(["base"], [], 50.0, None))
    assert "estimate" not in first and "no other stage" in second and "36.5 %" in second
    assert "30.4 tokens" in third and "50.0 %" in third


def test_nothing_measured_and_nothing_trained():
    ran = Ran([], ["base", "r1_zero"], 2.0, 1.0)
    first, second, third = sentences(report({}, {}), ran)
    assert first == "Nothing was trained: base and r1_zero had been complete before."
    assert "No answers were measured" in second and third == "Nothing else was measured."


def test_stops_and_warnings_are_told():
    whole = report(metrics(73), metrics(73))
    whole["stages"]["r1_zero"] |= {
        "stopped": [{"step": 40, "reason": "the reward collapsed", "good_step": 20}],
        "warnings": [{"step": 5}],
    }
    first, _, _ = sentences(whole, RAN)
    assert "r1_zero had stopped itself at step 40 (the reward collapsed)" in first
    assert "r1_zero gave a warning" in first


def search(best):
    return [
        {"method": name, "budget": budget, "accuracy": share_with_ci(hits, 500), "tokens": tokens}
        for name, budget, hits, tokens in (
            ("cot", 1, 255, 70), ("oracle", 16, 499, 999), ("majority", 16, best, 1120),
        )
    ]  # fmt: skip


def test_search_is_compared_with_one_chain_and_not_with_the_oracle():
    _, second, _ = sentences(report(search=search(350)), RAN)
    assert "the best on these problems was majority@16 with 70.0 %" in second
    assert "16.0 times the tokens" in second and "oracle" not in second
    _, second, _ = sentences(report(search=search(258)), RAN)
    assert second.startswith("None of 2 search methods was clearly better than cot")
    _, second, _ = sentences(report(search=search(100)), RAN)
    assert second.startswith("None of 2 search methods") and "best: cot@1" in second


def test_students_are_told():
    arms = {
        "sequence": {"metrics": metrics(196)},
        "rl_only": {"metrics": metrics(12)},
        "wall_seconds": 3.0,
    }
    _, second, _ = sentences(report(distill=arms), RAN)
    assert "sequence has most answers to math right, 98.0 %" in second


def searches(whole):
    """A report of a world whose reasoner is the base model."""
    whole["config"]["reasoner"] = "base"
    return whole


@pytest.mark.parametrize(
    "whole, command",
    [
        (report(), "--stages=base,r1_zero"),
        (report(metrics(73)), "--stages=base,r1_zero"),
        (report(metrics(73), metrics(80)), "--config.r1_zero.steps=300"),
        (report(metrics(73), metrics(190)), "launch.run_chat --model=runs/tiny/seed_0/r1_zero/hf"),
        (searches(report(metrics(73))), "--stages=base,verifiers,search"),
        (
            searches(report(metrics(73), search=search(350))),
            "launch.run_chat --model=runs/tiny/seed_0/base/hf",
        ),
    ],
)
def test_the_next_command_fits_the_outcome(whole, command):
    line = next_command(whole, "configs/tiny.py", "runs/tiny", python="/usr/bin/python3")
    assert command in line and line.startswith("/usr/bin/python3 -m launch.")


def test_every_sentence_ends_and_none_is_empty():
    for whole in (report(), report(metrics(1)), report(metrics(1), metrics(2), search=search(300))):
        for sentence in sentences(whole, RAN):
            assert sentence.endswith(".") and not re.search(r"\.\.|None |nan|inf\b", sentence)
