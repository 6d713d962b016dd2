"""The losses of process and outcome reward models against formulas in float64."""

import numpy as np
import pytest

from models.tokens.packing import pack, place, place_apart
from tests.train.objectives.scalar_parts import alone, scalar_params, sgd_update
from train.objectives.process_reward import (
    make_loss,
    mean_metrics,
    outcome_example,
    process_example,
    with_language,
)
from train.source import PackedSource


def solutions(count=9):
    """(prompt, response, step ends, labels): soft, hard and none at the very start."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        prompt, response = rng.integers(0, 264, rng.integers(1, 5)), rng.integers(0, 264, 3 + i)
        inner = np.flatnonzero(rng.random(len(response) - 1) < 0.4)
        ends = [*inner.tolist(), len(response) - 1]
        labels = rng.choice([0.0, 0.25, 0.5, 1.0], len(ends)).tolist()
        made.append((prompt.tolist(), response.tolist(), ends, labels))
    return made


def oracle(examples):
    """Mean cross-entropy, its gradient at the head, and how many values lean to the label."""
    losses, kernel, bias, total, agree = 0.0, 0.0, 0.0, 0.0, 0
    for example in examples:
        hidden, values = alone(example["tokens"])
        for i in np.flatnonzero(example["loss_weights"]):
            weight, y = np.float64(example["loss_weights"][i]), np.float64(example["labels"][i])
            p = 1 / (1 + np.exp(-values[i]))
            losses -= weight * (y * np.log(p) + (1 - y) * np.log(1 - p))
            kernel = kernel + weight * (p - y) * hidden[i]
            bias += weight * (p - y)
            total += weight
            agree += (p > 0.5) == (y > 0.5)
    labels = sum(np.count_nonzero(example["loss_weights"]) for example in examples)
    return losses / total, kernel / total, bias / total, agree / labels, labels


@pytest.mark.parametrize("kind", ["process", "outcome_all", "outcome_last"])
@pytest.mark.parametrize(("packed", "accumulate"), [(True, 1), (False, 2), (True, 2)])
def test_loss_and_gradient_equal_the_formula_on_sequences_read_alone(kind, packed, accumulate):
    if kind == "process":
        examples = [process_example(*solution) for solution in solutions()]
    else:
        at = kind.removeprefix("outcome_")
        examples = [outcome_example(p, r, labels[-1], at) for p, r, _, labels in solutions()]
    lengths = [len(example["tokens"]) for example in examples]
    placement = (place if packed else place_apart)(lengths, 20)
    batch = pack(examples, placement, 20, num_rows=12)
    metrics, gradient = sgd_update(make_loss, batch, accumulate=accumulate, finalize=mean_metrics)
    loss, kernel, bias, agreement, labels = oracle(examples)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(gradient["kernel"][:, 0], kernel, atol=2e-6)
    assert gradient["bias"][0] == pytest.approx(bias, abs=2e-6)
    assert float(metrics["agreement"]) == pytest.approx(agreement)
    assert metrics["labels"] == labels and metrics["tokens"] == sum(lengths)


@pytest.mark.parametrize(("packed", "accumulate"), [(True, 1), (False, 2), (True, 3)])
def test_language_adds_the_weighted_log_probabilities_of_right_responses(packed, accumulate):
    examples, places = [], []
    for i, solution in enumerate(solutions()):
        example = process_example(*solution)
        examples.append(with_language(example, len(solution[0]), 2.5, right=i % 3 > 0))
        places.append(range(len(solution[0]), len(example["tokens"])) if i % 3 else ())
    placement = (place if packed else place_apart)([len(e["tokens"]) for e in examples], 20)
    batch = pack(examples, placement, 20, num_rows=12)
    metrics, gradient = sgd_update(make_loss, batch, accumulate=accumulate, finalize=mean_metrics)
    embedding = np.float64(scalar_params()["embedding"])
    weighted, sums, total = 0.0, [], 0.0
    for example, written in zip(examples, places):
        logits = alone(example["tokens"])[0] @ embedding.T
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        labels = example["loss_weights"].sum()
        total += labels
        for t in written:
            sums.append(-logprobs[t - 1, example["tokens"][t]])
            weighted += 2.5 * labels / len(written) * sums[-1]
    loss, kernel, *_ = oracle(examples)
    assert float(metrics["loss"]) == pytest.approx(loss + weighted / total, rel=1e-5)
    assert float(metrics["nll"]) == pytest.approx(np.mean(sums), rel=1e-5)
    # The head of values has no part in it.
    np.testing.assert_allclose(gradient["kernel"][:, 0], kernel, atol=2e-6)


def test_labels_stand_at_the_tokens_that_end_a_step():
    example = process_example([5, 6], [7, 8, 9, 10], [1, 3], [0.25, 1.0])
    np.testing.assert_array_equal(example["tokens"], [5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(example["loss_weights"], [0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(example["labels"], [0, 0, 0, 0.25, 0, 1])


def test_an_outcome_weighs_the_same_however_long_its_solution_is():
    every = outcome_example([5], [7, 8, 9, 10], 1.0)
    np.testing.assert_array_equal(every["loss_weights"], [0, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_array_equal(every["labels"], [0, 1, 1, 1, 1])
    last = outcome_example([5], [7, 8], 1.0, at="last")
    np.testing.assert_array_equal(last["loss_weights"], [0, 0, 1])
    np.testing.assert_array_equal(last["labels"], [0, 0, 1])


def test_examples_go_through_the_source_of_every_objective():
    examples = [process_example(*solution) for solution in solutions()]
    batch = PackedSource(examples, rows=12, row_length=20, seed=0, num_epochs=1).next()
    assert batch["labels"].shape == (12, 20)
    assert batch["labels"].sum() == pytest.approx(sum(e["labels"].sum() for e in examples))


def test_bad_labels_are_refused():
    for bad, message in (
        (lambda: process_example([1], [2, 3], [1], [0.5, 1]), "1 step ends and 2 labels"),
        (lambda: process_example([1], [2, 3], [], []), "0 step ends"),
        (lambda: process_example([1], [2, 3], [1, 1], [0, 1]), "must ascend within the 2"),
        (lambda: process_example([1], [2, 3], [2], [0]), "must ascend within the 2"),
        (lambda: process_example([1], [2, 3], [0], [1.5]), r"labels=\[1.5\] must lie in"),
        (lambda: process_example([1], [2, 3], [0], [float("nan")]), "must lie in"),
        (lambda: outcome_example([1], [2], 1, at="first"), "at='first' is unknown"),
        (lambda: outcome_example([1], [], 1), "0 step ends"),
        (lambda: with_language(outcome_example([1], [2], 1), 1, -1, True), "share=-1"),
        (lambda: with_language(outcome_example([1], [2], 1), 0, 1, True), "leaves no prompt"),
        (lambda: with_language(outcome_example([1], [2], 1), 2, 1, True), "or no response"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()
