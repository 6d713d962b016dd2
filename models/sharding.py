"""Sharding as data: logical axis names, one table that maps them to mesh axes, and a mesh."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor", "expert")

# The default table; `set_rules` overrides entries of it. Parameters are split over `fsdp` along the
# embedding and over `tensor` along what a head, an MLP unit or a vocabulary entry owns
# (Megatron-LM, arXiv:1909.08053). Activations are split over the batch and, inside a block, along
# the same `tensor` dimensions.
LOGICAL_RULES: dict[str, str | tuple[str, ...] | None] = {
    "layers": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "experts": None,
    "latent": "fsdp",
    "batch": ("data", "fsdp"),
    "length": None,
    "residual": None,
    "norm": None,
}
# What a logical axis may be mapped to.
MeshAxes = str | Sequence[str] | None

_rules: dict[str, MeshAxes] = dict(LOGICAL_RULES)


def set_rules(changes: Mapping[str, MeshAxes]) -> None:
    """Overrides entries of the default table for this process; an empty mapping restores it.

    Programs that are compiled already keep the rules that they were compiled with, so this is
    called once, before the first.

    Args:
      changes: logical axis -> mesh axis, several of them, or None for an axis that stays whole.

    Raises:
      ValueError: an unknown logical axis or mesh axis.
    """
    for name, axes in changes.items():
        if name not in LOGICAL_RULES:
            known = ", ".join(LOGICAL_RULES)
            raise ValueError(f"sharding rule {name!r} is unknown; the logical axes are {known}")
        for axis in [axes] if isinstance(axes, str) else axes or ():
            if axis not in MESH_AXES:
                raise ValueError(
                    f"sharding rule {name}={axes!r}: {axis!r} is no mesh axis; the axes are "
                    + ", ".join(MESH_AXES)
                )
    _rules.clear()
    _rules.update(LOGICAL_RULES)
    _rules.update(changes)


def make_mesh(
    axis_sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh over all devices; one axis may be -1, "whatever is left"; missing axes have size 1.

    Raises:
      ValueError: an unknown axis, or sizes that do not multiply to the number of devices.
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
    types = (AxisType.Auto,) * len(MESH_AXES)
    try:
        return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # TPUs are wired as a torus.
        raise ValueError(
            f"mesh {sizes} does not lie along the axes of these {len(devices)} devices: choose"
            " sizes that are products of the machine's"
        ) from None


def partition_spec(
    logical_axes: Sequence[str | None], shape: Sequence[int], mesh: Any
) -> PartitionSpec:
    """Mesh axes for one array. A dimension that its mesh axes do not divide stays whole."""
    spec, used = [], set()
    for name, size in zip(logical_axes, shape, strict=True):
        axes = _rules[name] if name is not None else None
        axes = (axes,) if isinstance(axes, str) else axes or ()
        axes = tuple(a for a in axes if mesh.shape.get(a, 1) > 1 and a not in used)
        if not axes or size % int(np.prod([mesh.shape[a] for a in axes])):
            spec.append(None)
            continue
        used.update(axes)
        spec.append(axes if len(axes) > 1 else axes[0])
    return PartitionSpec(*spec)


def tree_shardings(abstract: Any, logical_axes: Any, mesh: Mesh) -> Any:
    """A `NamedSharding` for every leaf of `abstract` (shapes), named alike in `logical_axes`."""
    return jax.tree.map(
        lambda leaf, axes: NamedSharding(mesh, partition_spec(axes, leaf.shape, mesh)),
        abstract,
        logical_axes,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the mesh axes of `batch`; the same for every array of a batch."""
    return NamedSharding(mesh, PartitionSpec(_rules["batch"]))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Names the axes of an activation; a no-op outside `jax.set_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(logical_axes, x.shape, mesh))
