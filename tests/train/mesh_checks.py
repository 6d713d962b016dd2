"""Run by test_meshes.py on eight virtual devices: `python mesh_checks.py OBJECTIVE`.

Takes two updates on one device and on each mesh of eight, from the same parameters and batches, and
fails where they differ.
"""

import sys

import jax
import numpy as np
from flax import nnx

from models.config import Experts, LatentAttention, ModelConfig
from models.decoder import LanguageModel
from models.layers.moe import MoE
from models.sharding import make_mesh, set_rules, tree_shardings
from rl.learner import make_policy_loss
from rl.losses import PolicyLossConfig
from train.objectives import distillation, sft
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

MODEL = LanguageModel(
    ModelConfig(
        family="qwen3",
        vocab_size=32,
        embed_dim=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=32,
        qk_norm=True,
        tie_embeddings=True,
    )  # fmt: skip
)
# Experts are split over `tensor` and `expert`, and their tokens over all axes but `tensor`.
EXPERTS = LanguageModel(
    ModelConfig(
        family="deepseek_v3", vocab_size=32, embed_dim=16, num_layers=3, num_heads=4,
        num_kv_heads=4, head_dim=12, mlp_dim=32,
        latent=LatentAttention(kv_rank=8, q_rank=16, nope_dim=8, rope_dim=4, value_dim=6),
        experts=Experts(
            num_experts=8, per_token=3, mlp_dim=8, groups=4, groups_per_token=2, first_layer=1
        ),
        remat="full",
    )
)  # fmt: skip
ROWS, LENGTH = 16, 8

MIXED = {"data": 2, "fsdp": 2, "tensor": 2}
# Four devices hold a row, or two that also share the heads.
LONG, LONG_MIXED = {"fsdp": 2, "context": 4}, {"fsdp": 2, "context": 2, "tensor": 2}
# Entries of the sharding table for some of the meshes, by the name of the objective.
RULES = {"grpo": {"sequence": ("context", "tensor")}}
# Tokens of a teacher that are stored.
TOP = 5

# Loss, arguments of make_train_step, and meshes; compiling is what takes the time.
OBJECTIVES = {
    "sft": (sft.make_loss(MODEL), {}, [{"slice": 2, "data": 4}, {"fsdp": 8}, MIXED, LONG]),
    "experts": (
        make_policy_loss(EXPERTS, PolicyLossConfig(beta=0.1), temperature=0.8),
        {"normalize_weights": False},
        [LONG_MIXED, {"fsdp": 2, "tensor": 2, "expert": 2}],
    ),
    "grpo": (
        make_policy_loss(MODEL, PolicyLossConfig(beta=0.1), temperature=0.8),
        {"normalize_weights": False},
        [LONG_MIXED],
    ),
    "distillation": (distillation.make_loss(MODEL, MODEL, beta=0.3, chunk=3), {}, [LONG]),
    "top_distillation": (distillation.make_top_loss(MODEL, beta=0.3), {}, [MIXED]),
}

# Largest difference of a parameter after two updates of SGD at rate 1, which change some by more
# than 0.05: sums over devices and over microbatches are rounded in another order.
TOLERANCE = 1e-5

_rng = np.random.default_rng(0)
PARAMS, TEACHER, EXPERT_PARAMS = (
    jax.tree.map(lambda x: _rng.normal(0.1, 0.3, x.shape).astype(np.float32), model.abstract_params)
    for model in (MODEL, MODEL, EXPERTS)
)


def model_of(objective):
    return (EXPERTS, EXPERT_PARAMS) if objective == "experts" else (MODEL, PARAMS)


def batch(seed):
    """Two packed segments and some padding in each row."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(2, LENGTH + 1, (ROWS, 2, 1))
    first, last = ends.min(1), ends.max(1)
    column = np.arange(LENGTH)
    segment_ids = np.where(column < first, 1, np.where(column < last, 2, 0))
    positions = np.where(segment_ids == 2, column - first, column) * (segment_ids > 0)
    weights = rng.random((ROWS, LENGTH)) * (positions > 0)
    # Weights differ by row, so that a mean of means would not equal the mean.
    weights *= rng.random((ROWS, 1)) / weights.sum()
    floats = {"loss_weights": weights, "advantages": rng.normal(size=(ROWS, LENGTH))}
    for name in ("behaviour_logprobs", "reference_logprobs"):
        floats[name] = -3 + rng.normal(0, 0.3, (ROWS, LENGTH))
    floats["teacher_logprobs"] = -1.8 + rng.normal(0, 0.05, (ROWS, LENGTH, TOP))
    integers = {
        "teacher_ids": rng.permuted(np.tile(np.arange(32), (ROWS, LENGTH, 1)), axis=-1)[..., :TOP],
        "tokens": rng.integers(0, 32, (ROWS, LENGTH)),
        "positions": positions,
        "segment_ids": segment_ids,
    }
    arrays = {name: x.astype(np.int32) for name, x in integers.items()}
    return arrays | {name: x.astype(np.float32) for name, x in floats.items()}


def two_updates(objective, mesh, accumulate):
    loss_fn, arguments, _ = OBJECTIVES[objective]
    model, params = model_of(objective)
    optimizer = make_optimizer(
        {"name": "sgd", "learning_rate": 1.0, "momentum": 0.9, "clip_norm": None},
        model.abstract_params,
        10,
    )
    if objective == "distillation":
        shardings = tree_shardings(MODEL.abstract_params, MODEL.logical_axes, mesh)
        arguments = arguments | {"constants": jax.device_put(TEACHER, shardings)}
    step = make_train_step(loss_fn, optimizer, mesh, accumulate=accumulate, **arguments)
    state = state_from_params(model, params, optimizer, mesh)
    for seed in range(2):
        state, metrics = step(state, step.put(batch(seed)))
    shardings = jax.tree.map(lambda x: (x.sharding, x.sharding.shard_shape(x.shape)), state)
    assert step.num_compiles == 1
    return jax.tree.map(np.array, state.params), jax.tree.map(float, metrics), shardings


def check_rows_that_do_not_divide():
    """Three rows of tokens on eight devices that hold an expert each: all devices have all rows."""
    graph, state = nnx.split(MoE(EXPERTS.config, nnx.Rngs(0)))
    draw = lambda x: _rng.normal(0, 0.5, x.shape).astype(np.float32)  # noqa: E731
    state, x = jax.tree.map(draw, state), draw(np.zeros((3, 5, 16)))
    loss = lambda state, x: (nnx.merge(graph, state)(x) ** 2).sum()  # noqa: E731
    both = jax.jit(jax.value_and_grad(loss, (0, 1)))
    expected = both(state, x)
    with jax.set_mesh(make_mesh({"expert": 8})):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            both(state, x),
            expected,
        )


def main(objective):
    assert jax.device_count() == 8
    if objective == "experts":
        check_rows_that_do_not_divide()
    expected, expected_metrics, _ = two_updates(
        objective, make_mesh(devices=jax.devices()[:1]), accumulate=1
    )
    before = model_of(objective)[1]
    change = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, expected))))
    assert change > 0.05, change
    set_rules(RULES.get(objective, {}))
    for sizes in OBJECTIVES[objective][2]:
        mesh = make_mesh(sizes)
        params, metrics, shardings = two_updates(objective, mesh, accumulate=2)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE), params, expected
        )
        assert metrics.keys() == expected_metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(value, expected_metrics[name], rtol=1e-5, err_msg=name)
        # It really was split: over fsdp by the embedding, over tensor by the MLP, and its
        # momentum alike.
        split = mesh.shape["fsdp"], mesh.shape["tensor"]
        gates, momentum = (
            state["layers"]["mlp"]["gate"]
            for state in (shardings.params, shardings.opt_state.trace)
        )
        if objective == "experts":
            here = 8 // mesh.shape["expert"]
            assert gates[1] == (2, here, 16 // split[0], 8 // split[1]), gates
        else:
            assert gates["kernel"][1] == (2, 16 // split[0], 32 // split[1]), gates
        assert momentum == gates


if __name__ == "__main__":
    main(sys.argv[1])
