"""Findings are differences of what the stages report, seed by seed."""

import json

import pytest

from launch.recipe import findings
from models.files import read_jsonl


def report(**stages):
    return {
        stage: {"metrics": {name: {"mean": value} for name, value in metrics.items()}}
        for stage, metrics in stages.items()
    }


def write_metrics(directory, accuracies):
    directory.mkdir(parents=True)
    records = [{"step": i + 1, "accuracy": value} for i, value in enumerate(accuracies)]
    text = "".join(json.dumps(record) + "\n" for record in [{"loss": 1.0}, *records])
    (directory / "metrics.jsonl").write_text(text)


def test_differences_are_paired_by_seed_and_left_out_where_a_stage_is_missing(tmp_path):
    reports = [
        report(
            base={"math/pass@1": low, "response_tokens": 20.0},
            r1_zero={"math/pass@1": high, "math/majority@8": 1.0, "response_tokens": 31.0},
        )
        for low, high in ((0.3, 0.8), (0.4, 0.85), (0.5, 0.95))
    ]
    found = {each["finding"]: each for each in findings.findings(reports, [tmp_path] * 3)}
    vote = "math, majority vote less pass@1 of R1-Zero"
    assert set(found) == {"math, R1-Zero less base", vote, "response tokens, R1-Zero less base"}
    assert found[vote]["mean"] == pytest.approx((20 + 15 + 5) / 3)
    math = found["math, R1-Zero less base"]
    assert math["mean"] == pytest.approx((50 + 45 + 45) / 3) and math["seeds"] == math["n"] == 3
    # Student's t of three: 4.303 standard errors.
    assert math["ci95"][1] - math["mean"] == pytest.approx(4.303 * 2.8868 / 3**0.5, rel=1e-3)
    assert found["response tokens, R1-Zero less base"]["mean"] == 11.0
    assert "math, R1-Zero less base: +46.7 [+39.5, +53.8]" in findings.lines(found.values())


def test_steps_to_reach_what_r1_zero_arrives_at(tmp_path):
    """R1-Zero rises by 0.01 a step to 0.5; its last ten steps average 0.455; 0.9 of it is 0.41."""
    write_metrics(tmp_path / "r1_zero", [i / 100 for i in range(1, 51)])
    write_metrics(tmp_path / "reasoning_rl", [0.2] * 5 + [0.5] * 20)
    # Means of ten steps up to step s: s / 100 - 0.045, so 0.4095 is reached at 46.
    assert findings.steps_to_reach(tmp_path, "r1_zero") == 46
    # 3 of ten at 0.2 and 7 at 0.5 are 0.41, the first at or above: step 12.
    assert findings.steps_to_reach(tmp_path, "reasoning_rl") == 12
    write_metrics(tmp_path / "r1", [0.2] * 30)
    assert findings.steps_to_reach(tmp_path, "r1") is None
    reports = [report(r1_zero={}, reasoning_rl={})]
    found = findings.findings(reports, [tmp_path])
    assert all("RL steps to 90%" in each["finding"] for each in found)
    assert [each["mean"] for each in found] == [46, 12, 12 - 46]


def test_records_end_at_newlines_only(tmp_path):
    """A response may hold what Unicode calls a line separator, and JSON lets stand in a string."""
    records = [{"response": "a\x85b\u2028c"}, {"response": "d"}]
    path = tmp_path / "graded.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    assert [record for _, record in read_jsonl(path)] == records
