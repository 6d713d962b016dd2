"""Tests how the sharding table splits arrays, and that a recipe can override its entries."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from launch.parts import runtime
from models import sharding

SIZES = {"data": 2, "fsdp": 4, "tensor": 2}
MESH = jax.sharding.AbstractMesh(
    tuple(SIZES.get(axis, 1) for axis in sharding.MESH_AXES), sharding.MESH_AXES
)


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
            "mlp='tensors': 'tensors' is not a mesh axis; the axes are slice, data, fsdp",
        ),
        ({"mlp": ("fsdp", "x")}, "'x' is not a mesh axis"),
    ],
)
def test_mistakes_name_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        sharding.set_rules(changes)


def test_an_axis_over_which_nothing_is_split_is_refused():
    devices = [jax.devices()[0]] * 2
    for axis in ("slice", "data", "expert", "tensor", "context"):
        sharding.set_rules(
            {name: None for name, axes in sharding.LOGICAL_RULES.items() if axis in (axes or ())}
        )
        with pytest.raises(ValueError, match=f"mesh axis {axis}=2: the sharding table splits noth"):
            sharding.make_mesh({axis: 2}, devices)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device of a TPU job of several slices, as far as meshes look at it."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5"

    @property
    def coords(self):
        return (self.id % 2, self.id // 2 % 2, 0)

    core_on_chip = 0


def test_each_slice_has_rows_of_its_own():
    # The order in which JAX lists devices says nothing about slices.
    chips = [Chip(i, slice_index=i // 4) for i in range(8)]
    mesh = sharding.make_mesh({"slice": 2, "fsdp": -1, "tensor": 2}, chips[::2] + chips[1::2])
    assert dict(mesh.shape) == {
        "slice": 2, "data": 1, "fsdp": 2, "context": 1, "tensor": 2, "expert": 1
    }  # fmt: skip
    for i, devices in enumerate(mesh.devices):
        assert {chip.slice_index for chip in devices.ravel()} == {i}
    spec = sharding.partition_spec(("batch", "embed"), (8, 8), mesh)
    assert spec == PartitionSpec(("slice", "fsdp"), None)
    # Weights are not split over slices.
    assert sharding.partition_spec(("embed",), (8,), mesh) == PartitionSpec("fsdp")


def test_a_mesh_that_does_not_follow_the_slices_is_refused():
    chips = [Chip(i, slice_index=i // 4) for i in range(8)]
    with pytest.raises(ValueError, match="slice=1: these devices are in 2 slices; set it to 2"):
        sharding.make_mesh({"fsdp": 8}, chips)


def test_sampling_gives_the_devices_of_a_row_rows_of_their_own():
    chips = [Chip(i, slice_index=0) for i in range(8)]
    shape = tuple({"fsdp": 2, "context": 2, "tensor": 2}.get(a, 1) for a in sharding.MESH_AXES)
    mesh = Mesh(np.array(chips, object).reshape(shape), sharding.MESH_AXES)
    folded = sharding.decoding_mesh(mesh)
    assert (folded.shape["fsdp"], folded.shape["context"], folded.shape["tensor"]) == (4, 1, 2)
    assert list(folded.devices.ravel()) == chips
    assert sharding.batch_shards(folded) == 4 and sharding.batch_shards(mesh) == 2
    assert sharding.length_shards(mesh) == 2 and sharding.length_shards(folded) == 1
    whole = Mesh(np.array(chips[:2], object).reshape(2, 1, 1, 1, 1, 1), sharding.MESH_AXES)
    assert sharding.decoding_mesh(whole) is whole
