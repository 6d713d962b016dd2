"""Distillation losses and gradients against NumPy in float64, and what they hold in memory."""

import functools
import re
import types

import jax
import numpy as np
import pytest

from models.tokens.packing import pack, place
from train.objectives.distillation import make_loss, make_top_loss, top_logprobs
from train.source import PackedSource

V, D, T = 11, 5, 14


class Table:
    """logits = embedding[token] @ head, in the dtype of the parameters."""

    def __init__(self, vocab=V):
        self.config = types.SimpleNamespace(vocab_size=vocab)

    def hidden(self, params, tokens, positions, segment_ids):
        return params["embedding"][tokens]

    def logits(self, params, hidden):
        return hidden @ params["head"]


def table_params(seed, vocab=V, dim=D):
    rng = np.random.default_rng(seed)
    return {"embedding": rng.normal(size=(V, dim)), "head": rng.normal(0, 1.5, (dim, vocab))}


STUDENT, TEACHER = table_params(0), table_params(1, dim=D + 2)


@functools.cache
def batch():
    """Packed rows with padding; weights differ, and are 0 on the first half of each sequence."""
    rng = np.random.default_rng(2)
    examples = []
    for length in (9, 6, 4, 5, 3):
        weights = rng.uniform(0.5, 2, length) * (np.arange(length) >= length // 2)
        examples.append({"tokens": rng.integers(0, V, length), "loss_weights": weights})
    packed = pack(examples, place([9, 6, 4, 5, 3], T), T, num_rows=3)
    assert (packed["segment_ids"] == 0).any() and packed["segment_ids"].max() == 3
    return packed


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), -1)


def numpy_divergence(p, q, beta):
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    m = beta * p + (1 - beta) * q
    return (beta * kl(p, m) + (1 - beta) * kl(q, m)) / (beta * (1 - beta))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def oracle(student, beta, temperature, merge=lambda p, q: (p, q), teacher=TEACHER):
    """The loss, token by token; `merge` may merge outcomes of both distributions."""
    rows, total = batch(), 0.0
    for row, column in zip(*np.nonzero(rows["loss_weights"])):
        before = rows["tokens"][row, column - 1]
        p, q = (
            softmax(params["embedding"][before] @ params["head"] / temperature)
            for params in (teacher, student)
        )
        weight = np.float64(rows["loss_weights"][row, column])
        total += weight * numpy_divergence(*merge(p, q), beta)
    return total


def slopes(function, params, step=1e-5):
    """Central differences in every parameter."""
    gradient = jax.tree.map(np.zeros_like, params)
    for name, x in params.items():
        for index in np.ndindex(x.shape):
            ends = []
            for sign in (1, -1):
                moved = {key: value.copy() for key, value in params.items()}
                moved[name][index] += sign * step
                ends.append(function(moved))
            gradient[name][index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def compare(loss_fn, expected, extra=(), rows=None, check_gradient=True):
    with jax.enable_x64():
        # NumPy arrays, made float64 only in here.
        compute = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        (loss, metrics), gradient = compute(STUDENT, rows or batch(), *extra)
        assert loss == pytest.approx(expected(STUDENT), rel=1e-9)
        assert metrics["tokens"] == np.count_nonzero(batch()["loss_weights"])
        if check_gradient:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
                gradient,
                slopes(expected, STUDENT),
            )


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature, chunk", [(1.0, None), (0.7, 3), (2.0, T)])
def test_loss_and_gradient_equal_numpy(beta, temperature, chunk):
    loss_fn = make_loss(Table(), Table(), beta=beta, temperature=temperature, chunk=chunk)
    compare(
        loss_fn,
        lambda student: oracle(student, beta, temperature),
        extra=(TEACHER,),
        # One temperature suffices for the slow part.
        check_gradient=temperature == 0.7,
    )


@pytest.mark.parametrize("end, near", [(0.0, 1e-6), (1.0, 1 - 1e-6)])
def test_the_divergence_meets_the_kls_at_its_ends(end, near):
    losses = []
    for beta in (end, near, 0.5):
        loss_fn = make_loss(Table(), Table(), beta=beta, temperature=5.0)
        with jax.enable_x64():
            losses.append(float(loss_fn(STUDENT, batch(), TEACHER)[0]))
    assert losses[0] == pytest.approx(oracle(STUDENT, end, 5.0))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert abs(losses[2] / losses[0] - 1) > 0.05


def test_nothing_is_lost_when_the_student_is_the_teacher():
    for beta in (0.0, 0.5, 1.0):
        loss_fn = make_loss(Table(), Table(), beta=beta)
        with jax.enable_x64():
            (loss, _), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
                TEACHER, batch(), TEACHER
            )
        assert loss == pytest.approx(0, abs=1e-12)
        assert max(np.abs(x).max() for x in jax.tree.leaves(gradient)) < 1e-12


def test_entries_that_only_the_teacher_has_are_left_out():
    """Some sizes of a family pad the vocabulary further than others."""
    wide = TEACHER | {"head": np.hstack([TEACHER["head"], np.full((D + 2, 3), 0.4)])}
    with jax.enable_x64():
        loss, _ = make_loss(Table(), Table(V + 3))(STUDENT, batch(), wide)
    assert loss == pytest.approx(oracle(STUDENT, 0.0, 1.0))


def top_batch(k, temperature):
    ids, logprobs = top_logprobs(Table(), TEACHER, batch(), k, temperature=temperature, chunk=4)
    return batch() | {"teacher_ids": ids, "teacher_logprobs": logprobs}


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("temperature, chunk", [(1.0, None), (0.7, 3)])
def test_the_whole_vocabulary_stored_is_the_whole_divergence(beta, temperature, chunk):
    with jax.enable_x64():
        rows = top_batch(V, temperature)
    compare(
        make_top_loss(Table(), beta=beta, temperature=temperature, chunk=chunk),
        lambda student: oracle(student, beta, temperature),
        rows=rows,
        check_gradient=False,
    )


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("k, temperature, chunk", [(3, 0.7, None), (1, 1.0, 5)])
def test_the_tail_is_one_outcome(beta, k, temperature, chunk):
    def merge(p, q):
        top = np.argsort(-p)[:k]
        return tuple(np.append(x[top], np.delete(x, top).sum()) for x in (p, q))

    with jax.enable_x64():
        rows = top_batch(k, temperature)
    compare(
        make_top_loss(Table(), beta=beta, temperature=temperature, chunk=chunk),
        lambda student: oracle(student, beta, temperature, merge),
        rows=rows,
    )
    merged = oracle(STUDENT, beta, temperature, merge)
    assert 0 < merged < oracle(STUDENT, beta, temperature)


def test_a_tail_lost_in_rounding_gives_finite_gradients():
    """The stored probabilities add up to a little more than one."""
    rows = top_batch(3, 1.0)
    rows["teacher_logprobs"] = np.log(np.float32([0.5, 0.3, 0.2001])) + np.zeros((3, T, 1))
    for beta in (0.0, 0.4, 1.0):
        compute = jax.value_and_grad(make_top_loss(Table(), beta=beta), has_aux=True)
        (loss, _), gradient = compute(jax.tree.map(np.float32, STUDENT), rows)
        assert np.isfinite(loss) and loss > 0
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_stored_log_probs_are_of_the_predicted_token_and_sorted():
    with jax.enable_x64():
        rows = top_batch(4, 0.7)
    logits = TEACHER["embedding"][batch()["tokens"]] @ TEACHER["head"] / 0.7
    expected = np.log(softmax(logits))
    assert rows["teacher_ids"].shape == rows["teacher_logprobs"].shape == (3, T, 4)
    for row, column in [(0, 1), (0, 8), (1, 5), (2, T - 1)]:
        order = np.argsort(-expected[row, column - 1])[:4]
        np.testing.assert_array_equal(rows["teacher_ids"][row, column], order)
        np.testing.assert_allclose(
            rows["teacher_logprobs"][row, column], expected[row, column - 1][order]
        )


def test_stored_log_probs_are_packed_with_their_tokens():
    rng = np.random.default_rng(0)
    examples = []
    for length in (4, 3, 6):
        ids = rng.integers(1, V, (length, 2))
        examples.append(
            {"tokens": ids[:, 0], "loss_weights": np.ones(length, np.float32), "teacher_ids": ids,
             "teacher_logprobs": -ids.astype(np.float32)}
        )  # fmt: skip
    source = PackedSource(examples, rows=4, row_length=8, seed=0, num_epochs=1)
    rows = source.next()
    assert rows["teacher_ids"].shape == (4, 8, 2) and rows["teacher_ids"].dtype == np.int32
    np.testing.assert_array_equal(rows["teacher_ids"][..., 0], rows["tokens"])
    np.testing.assert_array_equal(rows["teacher_logprobs"], -rows["teacher_ids"])


def test_chunked_logits_of_both_models_never_exist_whole():
    def largest(chunk):
        loss_fn = make_loss(Table(), Table(), beta=0.5, chunk=chunk)
        text = str(jax.make_jaxpr(jax.grad(lambda *a: loss_fn(*a)[0]))(STUDENT, batch(), TEACHER))
        shapes = re.findall(r"f32\[([\d,]+)\]", text)
        sizes = [tuple(map(int, shape.split(","))) for shape in shapes]
        return max(np.prod(size) for size in sizes if size[-1] == V and len(size) > 2)

    assert largest(T) == 3 * T * V
    assert largest(2) == 3 * 2 * V


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"beta": 1.5}, r"beta=1.5: it must be from 0 \(forward KL\) to 1 \(reverse KL\)"),
        ({"temperature": 0.0}, "temperature=0.0: it must be positive"),
    ],
)
def test_bad_arguments(arguments, message):
    for make in (make_loss, make_top_loss):
        with pytest.raises(ValueError, match=message):
            make(*[Table()] * (1 + (make is make_loss)), **arguments)
    with pytest.raises(ValueError, match="k=12: it must be from 1 to 11"):
        top_logprobs(Table(), TEACHER, batch(), V + 1)
