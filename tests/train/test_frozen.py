"""Checkpoints without the parameters that no update changes, and the checksum of those."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from models.sharding import make_mesh
from train.checkpoint import Checkpointer
from train.frozen import digest
from train.optimizer import make_optimizer
from train.state import TrainState

PARAMS = {
    "layers": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
    "head": np.linspace(-1, 1, 8, dtype=np.float32),
}


def changed(path, index, value):
    copy = jax.tree.map(np.array, PARAMS)
    node = copy[path] if path == "head" else copy["layers"]["kernel"]
    node[index] = value
    return copy


@pytest.mark.parametrize(
    "other",
    [
        changed("head", 3, 7.0),
        changed("layers", (1, 2, 3), np.nextafter(np.float32(23), np.float32(24))),
        changed("head", slice(None), PARAMS["head"][::-1]),
        {**PARAMS, "head": PARAMS["head"].reshape(2, 4)},
        {**PARAMS, "tail": PARAMS["head"]},
        {"layers": PARAMS["layers"], "other": PARAMS["head"]},
        jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS),
    ],
)
def test_other_weights_have_another_digest(other):
    assert digest(jax.tree.map(jnp.asarray, PARAMS)) != digest(jax.tree.map(jnp.asarray, other))


def test_the_digest_does_not_depend_on_the_place():
    mesh = make_mesh({"fsdp": -1})
    split = NamedSharding(mesh, PartitionSpec(None, None, "fsdp" if mesh.size in (2, 4) else None))
    placed = dict(PARAMS, layers={"kernel": jax.device_put(PARAMS["layers"]["kernel"], split)})
    assert digest(placed) == digest(jax.tree.map(jnp.asarray, PARAMS))


def state(optimizer, params):
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(jnp.asarray(3, jnp.int32), params, optimizer.init(params))


def test_a_checkpoint_leaves_out_what_is_frozen(tmp_path):
    optimizer = make_optimizer(
        {"lr_rules": (("head", 1.0), ("rest", 0.0)), "decay_rules": (("rest", 1.0),)}, PARAMS, 10
    )
    config = {"base": "one"}
    with Checkpointer(tmp_path, config=config, split=optimizer.split) as checkpointer:
        checkpointer.save(state(optimizer, PARAMS), {"x": 1}, {})
    # The head is replaced by that of the checkpoint; the kernel is that of the new run.
    other = jax.tree.map(lambda x: x * 0 - 5, PARAMS)
    with Checkpointer(tmp_path, config=config, split=optimizer.split) as checkpointer:
        saved = checkpointer._manager.item_metadata(3)["state"].tree["params"]
        assert set(saved) == {"head"}
        restored, host = checkpointer.restore(state(optimizer, other))
    np.testing.assert_array_equal(restored.params["head"], PARAMS["head"])
    np.testing.assert_array_equal(restored.params["layers"]["kernel"], other["layers"]["kernel"])
    assert int(restored.step) == 3 and host == {"x": 1}
    with (
        Checkpointer(tmp_path, config={"base": "two"}, split=optimizer.split) as checkpointer,
        pytest.raises(ValueError, match="is of a run with base=one, this one has two"),
    ):
        checkpointer.restore(state(optimizer, other))
    whole = types.SimpleNamespace(init=optimizer.init)
    with (
        Checkpointer(tmp_path, config=config) as checkpointer,
        pytest.raises(ValueError, match="layers/kernel is absent there"),
    ):
        checkpointer.restore(state(whole, other))
