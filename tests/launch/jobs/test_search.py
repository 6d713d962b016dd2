"""The comparison of search methods: complete, resumable, and true to what it measured."""

import json

import numpy as np
import pytest

from launch.jobs import search
from launch.report import responses
from models.files import read_jsonl
from reasoning.search.common.evaluation import Entry, Measured, difference, measure
from reasoning.search.methods import ADAPTIVE_ARMS, adaptive_budgets, method_entries
from reasoning.search.self_refine import SelfRefine
from reasoning.verifiers.rule import RuleVerifier
from tests.reasoning.search.search_toy import PROBLEMS, ToyVerifier, random_scores, toy_policy

BUDGETS = [1, 2, 4]


def entries():
    scores = ToyVerifier(random_scores(0))
    policy = toy_policy()
    made = method_entries(
        scores, scores, certainty=scores, oracle=RuleVerifier(policy.task), plain=str,
        aggregation="last", wait="wait",
    )  # fmt: skip
    # Without a model there are no log-probs, and no tokens to resume at.
    del made["best_of_n_logprob"]
    return made | {"self_refine": Entry(SelfRefine(instruction="again"), scores)}


def budgets(names):
    return dict.fromkeys(names, BUDGETS)


def compare(path, chosen=None, policy=None):
    chosen = chosen or entries()
    return search.compare(
        policy or toy_policy(), chosen, PROBLEMS, budgets(chosen), path, seed=0, title="search"
    )


def test_every_method_at_every_budget(tmp_path):
    measured = compare(tmp_path / "measured.jsonl")
    records = [each.summary() for each in measured]
    named = {
        "direct", "cot", "majority", "best_of_n_orm", "best_of_n_prm", "weighted_majority", "beam",
        "dvts", "lookahead", "self_refine", "budget_forcing", "mcts",
    }  # fmt: skip
    assert named <= {record["method"] for record in records}
    for name in named:
        assert [r["budget"] for r in records if r["method"] == name] == BUDGETS
    for record in records:
        assert set(record) >= {"tokens", "verifier_calls", "flops", "accuracy"}
        assert record["accuracy"]["n"] == len(PROBLEMS)
    search.print_table(records)
    search.plot(tmp_path / "search.png", records)
    assert (tmp_path / "search.png").stat().st_size > 10_000
    assert any(line.startswith("majority@4 less cot@1") for line in search.findings(measured))


def test_finished_paths_are_kept_by_their_steps(tmp_path):
    compare(tmp_path / "measured.jsonl")
    for name in ("beam", "mcts", "majority"):
        records = [r for _, r in read_jsonl(tmp_path / "measured_samples" / f"{name}.jsonl")]
        assert len(records) == len(PROBLEMS[: search.SAMPLES_KEPT])
        assert not any("paths" in each for each in records[search.TREES_KEPT :])
        for record in records[: search.TREES_KEPT]:
            assert len(record["paths"]) == record["candidates"] > 0
            answers = {path["answer"] for path in record["paths"] if path["chosen"]}
            # A vote chooses an answer, of which it shows one response.
            assert record["answer"] in answers
            assert all(path["steps"] for path in record["paths"])
        assert responses.tree(records[0]["paths"])


def test_what_is_measured_is_not_measured_again(tmp_path):
    path = tmp_path / "measured.jsonl"
    whole = compare(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20])  # killed while it wrote the sixth
    policy = toy_policy()
    again = compare(path, policy=policy)
    assert [each.record() for each in again] == [each.record() for each in whole]
    assert path.read_text().splitlines(keepends=True) == lines
    policy = toy_policy()
    compare(path, policy=policy)
    assert not policy.generator.sampled.any()


def test_a_comparison_that_is_killed_anywhere_ends_the_same(tmp_path):
    """Whichever method is the first to ask for the shared samples."""
    path, folder = tmp_path / "measured.jsonl", tmp_path / "measured_samples"

    def written():
        samples = {each.name: each.read_text() for each in folder.iterdir()}
        return path.read_text().splitlines(keepends=True), samples

    compare(path)
    whole = written()
    for kept in range(len(whole[0])):
        path.write_text("".join(whole[0][:kept]))
        compare(path)
        assert written() == whole, f"killed after {kept} measurements"


def test_shared_samples_cost_each_method_what_it_uses(tmp_path):
    """The bank draws once for all; every method still pays for the samples that it looks at."""
    policy = toy_policy()
    chosen = {name: entries()[name] for name in ("majority", "best_of_n_prm", "weighted_majority")}
    measured = compare(tmp_path / "m.jsonl", chosen, policy)
    assert policy.generator.sampled.tolist() == [4 * 3, 4 * 3]
    for each in measured:
        assert each.tokens.tolist() == [each.budget * 3] * len(PROBLEMS)
        calls = 0 if each.method == "majority" else each.budget
        assert each.spent["verifier_calls"].tolist() == [calls] * len(PROBLEMS)


def test_the_adaptive_strategy_is_fitted_and_run(tmp_path):
    chosen = {name: entries()[name] for name in ADAPTIVE_ARMS}
    arms = adaptive_budgets(BUDGETS, [4])
    calibrated = search.compare(
        toy_policy(), chosen, PROBLEMS, arms, tmp_path / "c.jsonl", seed=1, title="calibration"
    )
    adaptive = search.fit_adaptive(
        toy_policy(), chosen, calibrated, PROBLEMS, BUDGETS, pilots=2, aggregation="last", seed=1
    )
    assert set(adaptive.describe()) == {"1", "2", "4"} and json.dumps(adaptive.describe())
    entry = Entry(adaptive, chosen["beam"].verifier)
    measured, results = measure("adaptive", entry, toy_policy(), PROBLEMS, 4, seed=0)
    assert [r.problem for r in results] == PROBLEMS and measured.tokens.shape == (2,)


def test_differences_are_paired():
    a = Measured("a", 1, np.array([True] * 50 + [False] * 50), {})
    b = Measured("b", 1, np.array([True] * 40 + [False] * 60), {})
    figure = difference(a, b)
    assert figure["mean"] == pytest.approx(0.1)
    # Ten of a hundred differ: far narrower than two independent proportions.
    assert figure["ci95"][0] > 0.03
