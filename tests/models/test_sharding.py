"""Tests how the sharding table splits arrays, and that a recipe can override its entries."""

import jax
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from launch.parts import runtime
from models import sharding

MESH = jax.sharding.AbstractMesh((2, 4, 2, 1), sharding.MESH_AXES)


@pytest.fixture(autouse=True)
def default_rules():
    yield
    sharding.set_rules({})


def spec(*axes, shape):
    return sharding.partition_spec(axes, shape, MESH)


def test_a_dimension_that_its_mesh_axes_do_not_divide_stays_whole():
    assert spec("embed", "mlp", shape=(8, 6)) == PartitionSpec("fsdp", "tensor")
    assert spec("embed", "mlp", shape=(6, 6)) == PartitionSpec(None, "tensor")


def test_overridden_entries_hold_and_the_others_stay():
    sharding.set_rules({"mlp": None, "embed": ("data", "fsdp")})
    assert spec("embed", "mlp", shape=(8, 6)) == PartitionSpec(("data", "fsdp"), None)
    assert spec("vocab", shape=(8,)) == PartitionSpec("tensor")
    sharding.set_rules({})
    assert spec("embed", "mlp", shape=(8, 6)) == PartitionSpec("fsdp", "tensor")


def test_rows_of_a_batch_follow_the_table():
    sharding.set_rules({"batch": "data"})
    mesh = sharding.make_mesh()
    assert sharding.batch_sharding(mesh).spec == PartitionSpec("data")


def test_a_config_gives_the_rules():
    mesh = {"data": 1, "fsdp": -1}
    runtime.build_mesh(ConfigDict({"mesh": mesh, "sharding": {"heads": None}}))
    assert spec("heads", shape=(8,)) == PartitionSpec(None)
    runtime.build_mesh(ConfigDict({"mesh": mesh, "sharding": {}}))
    assert spec("heads", shape=(8,)) == PartitionSpec("tensor")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": None}, "sharding rule 'head' is unknown; the logical axes are layers, embed"),
        (
            {"mlp": "tensors"},
            "mlp='tensors': 'tensors' is not a mesh axis; the axes are data, fsdp",
        ),
        ({"mlp": ("fsdp", "x")}, "'x' is not a mesh axis"),
    ],
)
def test_mistakes_name_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        sharding.set_rules(changes)


def test_an_axis_over_which_nothing_is_split_is_refused():
    devices = [jax.devices()[0]] * 2
    for axis in ("data", "expert", "tensor"):
        sharding.set_rules(
            {name: None for name, axes in sharding.LOGICAL_RULES.items() if axis in (axes or ())}
        )
        with pytest.raises(ValueError, match=f"mesh axis {axis}=2: the sharding table splits noth"):
            sharding.make_mesh({axis: 2}, devices)
