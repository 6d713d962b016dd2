"""The train step against formulas in NumPy, and under accumulation, packing and bad numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.sharding import make_mesh
from models.tokens.packing import pack, place, place_apart
from tests.train.bigram import Bigram, examples, parts
from train.objectives import sft
from train.optimizer import make_optimizer
from train.state import abstract_state, create_state, state_from_params
from train.step import make_train_step

SGD = (("name", "sgd"), ("learning_rate", 1.0), ("clip_norm", None))


def snapshot(tree):
    """Copies that survive donation."""
    return jax.tree.map(np.array, tree)


def assert_close(actual, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected)


def numpy_cross_entropy(params, batch):
    """Mean over trained tokens of -log softmax(logits of the token before)[token], in float64."""
    logits = np.float64(params["embedding"])[batch["tokens"]] @ params["head"]["kernel"]
    logits = logits + params["head"]["bias"]
    total, weight = 0.0, 0.0
    for row, column in zip(*np.nonzero(batch["loss_weights"])):
        before = logits[row, column - 1]
        token_loss = np.log(np.exp(before).sum()) - before[batch["tokens"][row, column]]
        total += batch["loss_weights"][row, column] * token_loss
        weight += batch["loss_weights"][row, column]
    return total / weight


def test_loss_and_gradient_equal_numpy():
    state, step, source = parts(optimizer=SGD)
    batch = source.next()
    batch["loss_weights"] = batch["loss_weights"] * np.linspace(0.5, 2, 16, dtype=np.float32)
    before = snapshot(state.params)
    after, metrics = step(state, step.put(batch))
    assert float(metrics["loss"]) == pytest.approx(numpy_cross_entropy(before, batch), rel=1e-5)
    assert metrics["tokens"] == np.count_nonzero(batch["loss_weights"])
    # With SGD at rate 1 the change is the gradient; compare with central differences.
    gradient = before["head"]["kernel"] - np.array(after.params["head"]["kernel"])
    for index in [(0, 0), (3, 7), (5, 11)]:
        ends = []
        for sign in (1, -1):
            moved = jax.tree.map(np.float64, before)
            moved["head"]["kernel"][index] += sign * 1e-5
            ends.append(numpy_cross_entropy(moved, batch))
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-5)


def test_weights_that_carry_the_aggregation_are_left_alone():
    state, step, source = parts(normalize_weights=False)
    batch, params = source.next(), snapshot(state.params)
    _, metrics = step(state, step.put(batch))
    whole = numpy_cross_entropy(params, batch) * batch["loss_weights"].sum()
    assert float(metrics["loss"]) == pytest.approx(whole, rel=1e-5)


def metered_loss(params, batch):
    """Metrics of both kinds."""
    loss, metrics = sft.make_loss(Bigram())(params, batch)
    return loss, metrics | {"token_max": jnp.max(batch["tokens"])}


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_changes_nothing(accumulate):
    outcomes = []
    for microbatches in (1, accumulate):
        state, step, source = parts(loss_fn=metered_loss, accumulate=microbatches)
        for _ in range(3):
            state, metrics = step(state, step.put(source.next()))
        outcomes.append(snapshot((state.params, metrics)))
    assert_close(*outcomes, rtol=2e-5, atol=1e-6)
    assert outcomes[0][1]["token_max"] == 11


def test_microbatches_without_weights_are_skipped():
    """Their loss may be anything; what is never computed cannot be NaN."""

    def loss_fn(params, batch):
        weights = batch["loss_weights"]
        return jnp.sum(weights * params["head"]["bias"][0]) / jnp.sum(weights != 0), {}

    state, step, _ = parts(loss_fn=loss_fn, accumulate=2, normalize_weights=False)
    weights = np.zeros((4, 16), np.float32)
    weights[::2] = 1
    state, metrics = step(state, step.put({"loss_weights": weights}))
    assert not metrics["skipped"]


def test_finalize_sees_the_whole_batch():
    def finalize(metrics):
        return {"tokens_squared": metrics["tokens"] ** 2}

    state, step, source = parts(accumulate=4, finalize=finalize)
    batch = source.next()
    _, metrics = step(state, step.put(batch))
    assert metrics["tokens_squared"] == np.count_nonzero(batch["loss_weights"]) ** 2
    assert "tokens" not in metrics


@functools.cache
def decoder():
    config = ModelConfig(
        family="qwen3", vocab_size=12, embed_dim=8, num_layers=2, num_heads=2, num_kv_heads=1,
        head_dim=4, mlp_dim=16, qk_norm=True,
    )  # fmt: skip
    model, rng = LanguageModel(config), np.random.default_rng(0)
    return model, jax.tree.map(
        lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), model.abstract_params
    )


def test_packing_changes_neither_loss_nor_gradient():
    model, params = decoder()
    optimizer = make_optimizer(dict(SGD), model.abstract_params, 10)
    step = make_train_step(sft.make_loss(model), optimizer, make_mesh({"data": -1}))
    sequences, outcomes = examples(12), []
    lengths = [len(sequence["tokens"]) for sequence in sequences]
    for placement in (place(lengths, 24), place_apart(lengths, 24)):
        batch = pack(sequences, placement, 24, num_rows=12)
        state = state_from_params(
            model, jax.tree.map(jnp.array, params), optimizer, make_mesh({"data": -1})
        )
        state, metrics = step(state, step.put(batch))
        outcomes.append((snapshot(state.params), float(metrics["loss"])))
    assert place(lengths, 24).num_rows < 6
    assert_close(*outcomes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped(poison):
    def loss_fn(params, batch):
        loss, metrics = sft.make_loss(Bigram())(params, batch)
        bad = jnp.any(batch["tokens"] == 11)
        if poison == "loss":
            return jnp.where(bad, jnp.nan, loss), metrics
        # sqrt has an infinite slope at 0.
        norm = jnp.sqrt(jnp.where(bad, 0.0, 1.0) * jnp.sum(params["embedding"] ** 2))
        return loss + norm, metrics

    state, step, source = parts(loss_fn=loss_fn)
    clean = dict(source.next())
    clean["tokens"] = clean["tokens"] % 11
    poisoned = clean | {"tokens": np.full_like(clean["tokens"], 11)}
    state, metrics = step(state, step.put(clean))
    assert not metrics["skipped"]
    before = snapshot((state.params, state.opt_state))
    state, metrics = step(state, step.put(poisoned))
    assert metrics["skipped"] == 1 and state.step == 2
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)
    state, metrics = step(state, step.put(clean))
    assert not metrics["skipped"]
    assert not np.array_equal(state.params["embedding"], before[0]["embedding"])


def test_frozen_parameters_have_no_gradient_and_do_not_move():
    state, step, source = parts(optimizer=(("lr_rules", (("embedding", 0.0), ("rest", 1.0))),))
    before = snapshot(state.params)
    state, _ = step(state, step.put(source.next()))
    np.testing.assert_array_equal(state.params["embedding"], before["embedding"])
    assert not np.array_equal(state.params["head"]["kernel"], before["head"]["kernel"])
    assert "embedding" not in state.opt_state.mu


def test_one_compilation_and_donation():
    # A step that no other test shares.
    state, step, source = parts(num_steps=33)
    for _ in range(3):
        old = state
        state, _ = step(state, step.put(source.next()))
        assert old.params["embedding"].is_deleted()
    assert step.num_compiles == 1


def test_constants_reach_the_loss_and_stay():
    """Not donated, not updated, and an argument of the program, not a part of it."""

    def loss_fn(params, batch, constants):
        loss, metrics = sft.make_loss(Bigram())(params, batch)
        return loss, metrics | {"seen": constants["big"].sum()}

    constants = {"big": jnp.full((64, 64), 0.5)}
    model, mesh = Bigram(), make_mesh({"data": -1})
    optimizer = make_optimizer({}, model.abstract_params, 10)
    step = make_train_step(loss_fn, optimizer, mesh, constants=constants)
    state, source = create_state(model, optimizer, mesh, jax.random.key(0)), parts()[2]
    assert "tensor<64x64xf32>" in step.lower(state, source.next()).as_text().partition("{")[2]
    for _ in range(2):
        state, metrics = step(state, step.put(source.next()))
        assert metrics["seen"] == 64 * 64 / 2 and not metrics["skipped"]
    np.testing.assert_array_equal(constants["big"], 0.5)


def test_compiles_from_shapes_alone():
    model, mesh = Bigram(), make_mesh({"data": -1})
    optimizer = make_optimizer({}, model.abstract_params, 10)
    step = make_train_step(sft.make_loss(model), optimizer, mesh)
    state = abstract_state(model, optimizer, mesh)
    concrete = create_state(model, optimizer, mesh, jax.random.key(0))
    described = jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), concrete)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), state) == described
    batch = {
        name: jax.ShapeDtypeStruct((4, 16), dtype)
        for name, dtype in dict(
            tokens=np.int32, positions=np.int32, segment_ids=np.int32, loss_weights=np.float32
        ).items()
    }
    assert step.lower(state, batch).compile().cost_analysis()["flops"] > 4 * 16 * 2 * 6 * 12


def test_bad_arguments():
    state, step, source = parts(accumulate=3)
    with pytest.raises(ValueError, match="a batch of 4 rows does not divide into 3 microbatches"):
        step.put(source.next())
    with pytest.raises(ValueError, match="accumulate=0: it must be at least 1"):
        parts(accumulate=0)
    state, step, source = parts(finalize=lambda metrics: {"grad_norm": metrics["tokens"]})
    with pytest.raises(ValueError, match="metric 'grad_norm' is also one of the step's"):
        step(state, step.put(source.next()))
