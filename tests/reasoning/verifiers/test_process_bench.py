"""Tests of ProcessBench: errors are where the labels say, and the measure is the paper's."""

import re

import numpy as np
import pytest

from models.tokens.tokenizer_training import train_bpe
from reasoning import response
from reasoning.generation.step_splitter import StepSplitter
from reasoning.problem import Problem
from reasoning.tasks import get_task
from reasoning.tiny_world.planted_errors import OMISSION, SLIP
from reasoning.verifiers import process_bench

TOKENIZER = train_bpe(
    ["a"], 264, eos_token="<eos>", pad_token="<pad>",
    text_tokens=("<think>", "</think>", "<answer>", "</answer>"),
)  # fmt: skip
SPLITTER = StepSplitter(TOKENIZER)


def planted(spec, count=60, seed=0, template="U: {}\n"):
    task = get_task(spec)
    problems = task.problems("test", count, 1)
    return process_bench.planted_errors(task, problems, template.format, TOKENIZER, SPLITTER, seed)


def steps_of(each):
    return [TOKENIZER.decode(ids) for ids in SPLITTER.split(each.completion.token_ids)]


def test_the_first_wrong_step_of_a_sum_is_the_first_that_does_not_add_up():
    errors = []
    for each in planted("tiny_math?low=4&high=9", 120):
        wrong, steps = None, steps_of(each)
        total, *terms = each.problem.metadata["terms"]
        for i, step in enumerate(steps):
            if match := re.fullmatch(r" (\d+) \w+ (\d+) \w+ (\d+)\n", step):
                expected = (total, terms[0], total + terms.pop(0)) if terms else None
                if wrong is None and tuple(map(int, match.groups())) != expected:
                    wrong = i
                total = int(match[3])
        if wrong is None and (terms or f"<answer> {total}<" not in steps[-1]):
            wrong = len(steps) - 1
        assert each.first_error == wrong
        assert (each.kind is None) == (wrong is None)
        if each.kind == SLIP:
            assert not terms
        parsed = response.parse_response(each.completion.text)
        assert parsed.well_formed and parsed.answer == str(total)
        assert each.prompt == f"U: {each.problem.question}\n"
        assert TOKENIZER.decode(each.completion.token_ids) == each.completion.text + "<eos>"
        errors.append((each.kind, wrong))
    assert [kind for kind, _ in errors] == [None, SLIP, None, OMISSION] * 30
    for kind in (SLIP, OMISSION):
        assert len({wrong for its, wrong in errors if its == kind}) > 5


@pytest.mark.parametrize("spec", ["tiny_logic", "tiny_code"])
def test_elsewhere_right_up_to_the_wrong_step(spec):
    task = get_task(spec)
    for each in planted(spec, 30):
        if each.first_error is None:
            if spec == "tiny_logic":
                assert task.verify(each.problem, task.extract(each.completion.text)).correct
        else:
            # The first step only opens the chain; the last holds the answer, which is the first
            # that is wrong only where what it should rest on has been left out.
            last = len(steps_of(each)) - 1
            assert 1 <= each.first_error < last + (each.kind == OMISSION)
            assert spec == "tiny_code" or each.kind == SLIP
    assert planted(spec, 30) == planted(spec, 30)
    assert [e.first_error for e in planted(spec, 30, seed=1)] != [
        e.first_error for e in planted(spec, 30)
    ]


def test_a_chain_that_the_prompt_opens_is_not_opened_again():
    """The same solutions, and the same wrong lines; the opening is no step of theirs any more."""
    opened = planted("tiny_math?low=4&high=9", template="U: {}\nA: <think>\n")
    for whole, rest in zip(planted("tiny_math?low=4&high=9"), opened, strict=True):
        assert " <think>\n" + rest.completion.text == whole.completion.text
        if whole.first_error is None:
            assert rest.first_error is None
        else:
            assert steps_of(rest)[rest.first_error] == steps_of(whole)[whole.first_error]


def test_tasks_without_steps_are_refused():
    with pytest.raises(ValueError, match="'tiny_knowledge' has no worked solutions"):
        task, problem = get_task("tiny_knowledge"), Problem("tiny_knowledge", "?", "x")
        process_bench.planted_errors(task, [problem], str, TOKENIZER, SPLITTER, 0)


def random_scores(n=40, seed=0):
    rng = np.random.default_rng(seed)
    scores = [np.round(rng.uniform(size=rng.integers(1, 6)), 2) for _ in range(n)]
    errors = [int(rng.integers(len(s))) if rng.random() < 0.6 else None for s in scores]
    for each, error in zip(scores, errors):
        if error is not None and rng.random() < 0.7:
            each[error] = rng.uniform(0, 0.3)
    return scores, errors


def written_out(scores, errors, threshold):
    """Accuracies and F1, step by step."""
    hits = {True: [], False: []}
    for each, error in zip(scores, errors):
        found = None
        for i, score in enumerate(each):
            if score < threshold:
                found = i
                break
        hits[error is not None].append(found == error)
    a, b = np.mean(hits[True]), np.mean(hits[False])
    return a, b, 2 * a * b / (a + b) if a + b else 0.0


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.98, 1.5])
def test_the_measure_equals_its_definition(threshold):
    scores, errors = random_scores()
    figures = process_bench.measure(scores, errors, threshold)
    expected = written_out(scores, errors, threshold)
    names = ("error_accuracy", "correct_accuracy", "f1")
    assert [figures[name]["mean"] for name in names] == pytest.approx(expected)
    assert figures["f1"]["n"] == 40
    assert sum(figures[name]["n"] for name in names[:2]) == 40
    low, high = figures["f1"]["ci95"]
    assert low <= expected[2] <= high


def test_a_score_at_the_threshold_is_not_flagged():
    figures = process_bench.measure([np.array([0.5]), np.array([0.5])], [None, 0], 0.5)
    assert figures["correct_accuracy"]["mean"] == 1 and figures["error_accuracy"]["mean"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_chosen_one(seed):
    scores, errors = random_scores(seed=seed)
    chosen = process_bench.choose_threshold(scores, errors)
    best = max(written_out(scores, errors, t)[2] for t in np.linspace(-0.005, 1.005, 203))
    assert written_out(scores, errors, chosen)[2] == pytest.approx(best)


def test_the_interval_covers_the_truth():
    """Of 150 benchmarks whose F1 is 0.6 by design, about 95 % have it in their interval."""
    rng, covered = np.random.default_rng(0), 0
    for seed in range(150):
        found = rng.random(100) < 0.6
        scores = [np.array([0.2 if hit else 0.8]) for hit in found[:50]]
        scores += [np.array([0.8 if hit else 0.2]) for hit in found[50:]]
        figure = process_bench.measure(scores, [0] * 50 + [None] * 50, 0.5, seed)["f1"]
        covered += figure["ci95"][0] <= 0.6 <= figure["ci95"][1]
    assert 135 <= covered <= 149


def test_one_kind_of_solution_is_refused():
    for errors, kind in (([0, 0], "erroneous"), ([None, None], "right")):
        with pytest.raises(ValueError, match=f"all 2 solutions are {kind}"):
            process_bench.measure([np.array([0.5])] * 2, errors, 0.5)
        with pytest.raises(ValueError, match=f"all 2 solutions are {kind}"):
            process_bench.choose_threshold([np.array([0.5])] * 2, errors)
