"""Decides how arrays are split over devices.

Arrays name their axes logically ("embed", "heads"); one table maps these names to mesh axes.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("slice", "data", "fsdp", "context", "tensor", "expert")

# The default table; `set_rules` overrides entries of it. Parameters are split over `fsdp` along the
# embedding axis, and over `tensor` along the axes of heads, MLP units and vocabulary (Megatron-LM,
# arXiv:1909.08053). Activations are split along the batch and, inside a block, along the same
# `tensor` axes. Experts are split over `expert`, whose devices have rows of their own, too; inside
# a mixture of experts they exchange their tokens (`models.layers.moe`). Devices along `context`
# hold parts of the same rows; for attention they gather keys and values. Devices along `slice` are
# in other slices of a TPU job, which a slow network joins; each slice has rows of its own and whole
# weights, so that only gradients go over that network. `sequence` is the length of the residual
# stream between the parts of a layer. Over ("context", "tensor"), the devices of `tensor` hold
# parts of the stream instead of copies (arXiv:2205.05198).
LOGICAL_RULES: dict[str, str | tuple[str, ...] | None] = {
    "layers": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "experts": "expert",
    "latent": "fsdp",
    "batch": ("slice", "data", "fsdp", "expert"),
    "length": "context",
    "sequence": "context",
    "residual": None,
    "norm": None,
}
# A logical axis maps to one mesh axis, to several, or to none.
MeshAxes = str | Sequence[str] | None

_rules: dict[str, MeshAxes] = dict(LOGICAL_RULES)


def set_rules(changes: Mapping[str, MeshAxes]) -> None:
    """Overrides entries of the default table for this process; an empty mapping restores it.

    Compiled programs keep the rules that they were compiled with, so call this once, before the
    first compilation.

    Args:
      changes: maps logical axes to a mesh axis, to several, or to None for an axis that stays
        whole.

    Raises:
      ValueError: a logical axis or a mesh axis is unknown.
    """
    for name, axes in changes.items():
        if name not in LOGICAL_RULES:
            known = ", ".join(LOGICAL_RULES)
            raise ValueError(f"sharding rule {name!r} is unknown; the logical axes are {known}")
        for axis in axis_names(axes):
            if axis not in MESH_AXES:
                raise ValueError(
                    f"sharding rule {name}={axes!r}: {axis!r} is not a mesh axis; the axes are "
                    + ", ".join(MESH_AXES)
                )
    _rules.clear()
    _rules.update(LOGICAL_RULES)
    _rules.update(changes)


def make_mesh(
    axis_sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None
) -> Mesh:
    """Makes a mesh over all devices.

    Args:
      axis_sizes: size of each mesh axis. One size may be -1, which takes all devices that are left;
        missing axes have size 1. The default is `fsdp=-1`.
      devices: by default all devices of the process's backend.

    Raises:
      ValueError: an axis is unknown, the sizes do not multiply to the number of devices, or an axis
        has several devices, but no entry of the sharding table splits anything over it.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict.fromkeys(MESH_AXES, 1) | dict(axis_sizes or {"fsdp": -1})
    if unknown := sorted(set(sizes) - set(MESH_AXES)):
        known = ", ".join(MESH_AXES)
        raise ValueError(f"mesh axis {unknown[0]!r} is unknown; the axes are {known}")
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    if len(free) == 1 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    elif free or fixed != len(devices):
        raise ValueError(
            f"mesh {sizes} does not fit {len(devices)} devices; their product must be "
            f"{len(devices)}, with at most one axis -1"
        )
    used = {axis for axes in _rules.values() for axis in axis_names(axes)}
    for axis, size in sizes.items():
        if size > 1 and axis not in used:
            raise ValueError(
                f"mesh axis {axis}={size}: the sharding table splits nothing over it, so all its"
                f" devices would do the same; set it to 1, or map an axis to it in `sharding`"
            )
    types = (AxisType.Auto,) * len(MESH_AXES)
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    slices = _slices(devices)
    if slices > 1 and sizes["slice"] != slices:
        raise ValueError(
            f"mesh axis slice={sizes['slice']}: these devices are in {slices} slices; set it to"
            f" {slices}"
        )
    try:
        if slices > 1:
            of_network = (slices, *(1,) * (len(shape) - 1))
            array = mesh_utils.create_hybrid_device_mesh((1, *shape[1:]), of_network, devices)
            return Mesh(array, MESH_AXES, axis_types=types)
        return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # TPUs are wired as a torus, which not every mesh fits.
        raise ValueError(
            f"mesh {sizes} does not fit the wiring of these {len(devices)} devices; choose sizes"
            " that are products of the axis sizes of the machine's torus"
        ) from None


def _slices(devices: Sequence[Any]) -> int:
    """Returns in how many slices of a TPU job the devices are; others are in one."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def decoding_mesh(mesh: Mesh) -> Mesh:
    """Returns the mesh of the same devices for sampling, where those of `context` have own rows.

    A step of sampling has one token of each row, which `context` could not split.
    """
    sizes = dict(mesh.shape)
    if sizes.get("context", 1) == 1:
        return mesh
    sizes["fsdp"], sizes["context"] = sizes["fsdp"] * sizes["context"], 1
    devices = mesh.devices.reshape(tuple(sizes.values()))
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)


@contextlib.contextmanager
def for_decoding() -> Iterator[None]:
    """Returns a context in which `jax.set_mesh` holds the `decoding_mesh` of its mesh, if any."""
    mesh = jax.sharding.get_mesh()
    changed = mesh if mesh.empty else decoding_mesh(mesh)
    with contextlib.nullcontext() if changed is mesh else jax.set_mesh(changed):
        yield


def partition_spec(
    logical_axes: Sequence[str | None], shape: Sequence[int], mesh: Any
) -> PartitionSpec:
    """Returns the mesh axes of each dimension of one array.

    A dimension stays whole if its mesh axes do not divide it, or if an earlier dimension uses them.

    Args:
      logical_axes: name of each dimension, or None for one that stays whole.
      shape: sizes of the dimensions.
      mesh: a `Mesh`, or an abstract mesh.
    """
    spec, used = [], set()
    for name, size in zip(logical_axes, shape, strict=True):
        axes = axis_names(_rules[name]) if name is not None else ()
        axes = tuple(a for a in axes if mesh.shape.get(a, 1) > 1 and a not in used)
        if not axes or size % int(np.prod([mesh.shape[a] for a in axes])):
            spec.append(None)
            continue
        used.update(axes)
        spec.append(axes[0] if len(axes) == 1 else axes)
    return PartitionSpec(*spec)


def tree_shardings(abstract: Any, logical_axes: Any, mesh: Mesh) -> Any:
    """Returns a pytree with a `NamedSharding` for every leaf.

    Args:
      abstract: pytree of arrays or `jax.ShapeDtypeStruct`.
      logical_axes: pytree of the same structure with a tuple of logical axes for every leaf.
    """
    return jax.tree.map(
        lambda leaf, axes: NamedSharding(mesh, partition_spec(axes, leaf.shape, mesh)),
        abstract,
        logical_axes,
    )


def decoding_shardings(abstract: Any, logical_axes: Any, mesh: Mesh) -> Any:
    """Returns the shardings of weights that a sampler reads at every token.

    In training, a device gathers the parts of a weight over `fsdp` where it uses the weight. A
    sampler would gather all of them for every token. So here only `tensor` splits a weight, but for
    the stacks of experts, which are most of a model's weights and would not fit.

    Args: see `tree_shardings`; the result is for the `decoding_mesh` of the mesh.
    """
    mesh = decoding_mesh(mesh)

    def of_leaf(leaf, axes):
        spec = partition_spec(axes, leaf.shape, mesh)
        if "experts" not in axes:
            spec = PartitionSpec(*map(_without_batch_axes, spec))
        return NamedSharding(mesh, spec)

    return jax.tree.map(of_leaf, abstract, logical_axes)


def _without_batch_axes(axes: MeshAxes) -> MeshAxes:
    kept = tuple(axis for axis in axis_names(axes) if axis not in axis_names(_rules["batch"]))
    return kept[0] if len(kept) == 1 else kept or None


def batch_shards(mesh: Any) -> int:
    """Returns over how many devices the rows of a batch are split; 1 without a mesh."""
    if mesh.empty:
        return 1
    return int(np.prod([mesh.shape.get(axis, 1) for axis in axis_names(_rules["batch"])]))


def length_shards(mesh: Any) -> int:
    """Returns over how many devices a row is split; 1 without a mesh."""
    if mesh.empty:
        return 1
    return int(np.prod([mesh.shape.get(axis, 1) for axis in axis_names(_rules["length"])]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the arrays of a batch, which splits their rows over devices."""
    return NamedSharding(mesh, PartitionSpec(_rules["batch"]))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Splits an activation over devices by its logical axes; a no-op outside `jax.set_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(logical_axes, x.shape, mesh))


def shards_of(name: str, size: int) -> int:
    """Returns over how many devices of `jax.set_mesh` a dimension of a logical axis is split."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    axes = axis_names(partition_spec((name,), (size,), mesh)[0])
    return int(np.prod([mesh.shape[axis] for axis in axes]))


def axis_names(axes: MeshAxes) -> tuple[str, ...]:
    """Returns the mesh axes of an entry of the table, or of a `PartitionSpec`, as a tuple."""
    return (axes,) if isinstance(axes, str) else tuple(axes or ())


def mesh_platform() -> str:
    """Returns the platform that the traced program is for, such as "cpu", "gpu" or "tpu".

    It is that of the devices of `jax.set_mesh`, which need not be devices of this machine. Without
    a mesh it is that of the devices that JAX computes on by default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
