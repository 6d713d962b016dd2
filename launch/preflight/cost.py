"""Counts what a compiled program does on one device: operations, memory traffic, collectives.

The body of a loop counts as often as it runs. XLA's own `cost_analysis` counts it once.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from launch.preflight.hlo import Array, Computation, Instruction, Module

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# They move nothing, or stand for what other instructions have counted.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "while", "conditional", "call", "opt-barrier", "iota", "copy-done", "slice-done",
    "domain", "add-dependency",
}  # fmt: skip
SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True)
class Collective:
    """Messages of one kind and size.

    Attributes:
      kind: such as all-gather.
      bytes: what a device has in the end, or, of a reduction, at the start.
      group: devices that take part together.
      times: how often the program does it.
      depth: loops around it whose turns depend on the data.
    """

    kind: str
    bytes: int
    group: int
    times: float
    depth: int = 0

    @property
    def moved(self) -> float:
        """Bytes that a device receives in all, by a ring."""
        share = (self.group - 1) / self.group if self.group else 0.0
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.times * self.bytes * factor


@dataclasses.dataclass
class Cost:
    """What one device does.

    Attributes:
      flops: operations of matrix products; those of the attention kernel count too.
      bytes: traffic of the main memory, if what is fused stays on the chip.
      collectives: the messages between devices.
      kernels: how often each kernel that is not XLA's runs.
      unknown_loops: loops whose turns depend on the data, and what they were taken for.
    """

    flops: float = 0.0
    bytes: float = 0.0
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    kernels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unknown_loops: list[float] = dataclasses.field(default_factory=list)

    def add(self, other: "Cost", times: float = 1.0) -> None:
        """Adds the cost of a computation that runs `times` times."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        for name, count in other.kernels.items():
            self.kernels[name] += times * count  # type: ignore[assignment]
        self.collectives += [
            dataclasses.replace(each, times=times * each.times) for each in other.collectives
        ]
        self.unknown_loops += other.unknown_loops

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Returns the number of messages of each kind, and the bytes that a device receives."""
        found: dict[str, dict[str, float]] = {}
        for each in self.collectives:
            entry = found.setdefault(each.kind, {"count": 0.0, "bytes": 0.0, "largest": 0.0})
            entry["count"] += each.times
            entry["bytes"] += each.moved
            entry["largest"] = max(entry["largest"], each.bytes)
        return found


def count(module: Module, loops: Sequence[float] = (), devices: int = 1) -> Cost:
    """Counts the cost of a program on one device.

    Args:
      module: the program, as `hlo.parse` reads it.
      loops: turns of the loops whose number depends on the data, by how many such loops are around
        them: first that of the outermost ones. Missing ones run
        once.
      devices: devices of the program, for messages that name no group.
    """
    return _Counter(module, loops, devices).of(module.entry, 0)


class _Counter:
    def __init__(self, module: Module, loops: Sequence[float], devices: int):
        self._module, self._loops, self._devices = module, loops, devices
        self._known: dict[tuple[str, int], Cost] = {}

    def of(self, computation: Computation, depth: int) -> Cost:
        """Returns the cost of a computation that lies in `depth` loops of unknown turns."""
        key = computation.name, depth
        if key not in self._known:
            total = Cost()
            for each in computation.instructions:
                self._add(total, each, computation, depth)
            self._known[key] = total
        return self._known[key]

    def _add(self, total: Cost, each: Instruction, inside: Computation, depth: int) -> None:
        computations = self._module.computations
        if each.opcode == "while":
            turns = self._module.turns(each, inside)
            body = computations[each.attribute(r"body=%?([\w.\-]+)") or ""]
            deeper = depth
            if turns is None:
                turns = self._loops[depth] if depth < len(self._loops) else 1.0
                deeper += 1
                total.unknown_loops.append(turns)
            total.add(self.of(body, deeper), turns)
            return
        if each.opcode == "conditional":
            found = [self.of(computations[name], depth) for name in each.branches]
            total.add(max(found, key=lambda cost: (cost.flops, cost.bytes)))
            return
        if each.opcode == "call" or each.opcode == "async-start":
            for name in each.called:
                total.add(self.of(computations[name], depth))
            return
        if each.opcode == "fusion":
            body = computations[each.called[0]]
            inner = self.of(body, depth)
            # What is fused stays on the chip: only the operands and the result are traffic.
            total.add(dataclasses.replace(inner, bytes=0.0))
            total.bytes += _fusion_bytes(each, inside, body)
            return
        kind = next((k for k in COLLECTIVES if each.opcode in (k, f"{k}-start")), None)
        if kind is not None:
            found = _collective(kind, each, inside, self._devices)
            total.collectives.append(dataclasses.replace(found, depth=depth))
        elif each.opcode in ("dot", "convolution"):
            total.flops += _product(each, inside)
        elif each.opcode == "custom-call":
            flops, name = _kernel(each, inside)
            total.flops += flops
            if name:
                total.kernels[name] += 1
        total.bytes += _bytes(each, inside)


def _main(arrays: Sequence[Array]) -> int:
    return sum(array.bytes for array in arrays if array.space == 0)


def _operands(each: Instruction, inside: Computation) -> list[Instruction]:
    return [inside.by_name[name] for name in each.operands if name in inside.by_name]


def _bytes(each: Instruction, inside: Computation) -> float:
    """Returns the traffic of an instruction that is not fused."""
    if each.opcode in FREE or each.opcode.endswith("-done"):
        return 0.0
    operands = _operands(each, inside)
    if each.opcode in SLICES:
        return 2.0 * _main(each.arrays)
    if each.opcode == "dynamic-update-slice":
        return 2.0 * _main(operands[1].arrays)
    if each.opcode in ("copy-start", "slice-start", "async-start"):
        # The first of the results is the target, the second the source.
        moved = each.arrays[0].bytes
        return float(moved * sum(array.space == 0 for array in each.arrays[:2]))
    if each.opcode == "custom-call" and each.attribute(r'custom_call_target="(\w+)"') in (
        "AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape",
    ):  # fmt: skip
        return 0.0
    return float(_main(each.arrays) + sum(_main(operand.arrays) for operand in operands))


def _fusion_bytes(each: Instruction, inside: Computation, body: Computation) -> float:
    """Returns the traffic of a fusion: of an operand that is only sliced, the slices count."""
    total = 0.0
    updated = _updated(body)
    for operand, parameter in zip(_operands(each, inside), body.parameters, strict=False):
        if any(array.space for array in operand.arrays):
            continue
        users = _real_users(body, parameter.name)
        if parameter.name in updated:
            continue  # It is updated in place; the update counts with the results.
        if users and all(user.opcode in SLICES for user, _ in users):
            total += sum(user.bytes for user, _ in users)
        else:
            total += operand.bytes
    roots = [body.root]
    if body.root.opcode == "tuple":
        roots = [body.by_name[name] for name in body.root.operands]
    for root, array in zip(roots, each.arrays, strict=False):
        if array.space:
            continue
        source = _through(body, root)
        if source.opcode == "dynamic-update-slice":
            total += 2.0 * body.by_name[source.operands[1]].bytes
        else:
            total += array.bytes
    return total


def _through(body: Computation, each: Instruction) -> Instruction:
    while each.opcode in ("bitcast", "copy", "reshape") and each.operands[0] in body.by_name:
        each = body.by_name[each.operands[0]]
    return each


def _updated(body: Computation) -> set[str]:
    """Returns the parameters whose buffers a fusion updates in place."""
    found = set()
    for each in body.instructions:
        if each.opcode == "dynamic-update-slice":
            found.add(_through(body, body.by_name[each.operands[0]]).name)
    return found


def _real_users(body: Computation, name: str) -> list[tuple[Instruction, int]]:
    """Returns who reads a value, looking through bitcasts, and as which operand."""
    found = []
    for user in body.users.get(name, ()):
        if user.opcode in ("bitcast", "reshape"):
            found += _real_users(body, user.name)
        else:
            found.append((user, user.operands.index(name)))
    return found


def _product(each: Instruction, inside: Computation) -> float:
    """Returns the operations of a matrix product, twice its multiplications."""
    left, right = (operand.arrays[0] for operand in _operands(each, inside)[:2])
    out = each.arrays[0]
    if each.opcode == "dot":
        axes = each.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
        sizes = [left.dims[int(axis)] for axis in axes.split(",") if axis]
        return 2.0 * out.elements * math.prod(sizes)
    labels = each.attribute(r"dim_labels=(\S+?)(?:,|$)") or ""
    (left_labels, kernel_labels), out_labels = (
        labels.split("->")[0].split("_"),
        labels.split("->")[1],
    )
    pairs = 1.0
    window = each.attribute(r"window=\{([^}]*)\}") or ""
    for axis in sorted(set(kernel_labels) - {"i", "o"}):
        pairs *= _window_pairs(
            window, int(axis), left.dims[left_labels.index(axis)],
            right.dims[kernel_labels.index(axis)], out.dims[out_labels.index(axis)],
        )  # fmt: skip
    depth = right.dims[kernel_labels.index("i")]
    plain = out.dims[out_labels.index("b")] * out.dims[out_labels.index("f")]
    return 2.0 * plain * depth * pairs


def _window_pairs(window: str, axis: int, length: int, kernel: int, out: int) -> float:
    """Counts the pairs of output place and kernel place that meet an element along one axis."""

    def values(name: str, default: str) -> list[str]:
        found = re.search(rf"\b{name}=(\S+)", window)
        return found[1].split("x") if found else [default] * (axis + 1)

    stride, spread = int(values("stride", "1")[axis]), int(values("lhs_dilate", "1")[axis])
    dilate = int(values("rhs_dilate", "1")[axis])
    low = int(values("pad", "0_0")[axis].split("_")[0])
    places = np.arange(out)[:, None] * stride - low + np.arange(kernel)[None] * dilate
    meets = (places >= 0) & (places % spread == 0) & (places // spread < length)
    return float(meets.sum())


def _kernel(each: Instruction, inside: Computation) -> tuple[float, str]:
    """Returns operations and name of a kernel that XLA cannot look into.

    Of JAX's splash attention the causal half is counted, in whole; it goes forward by two products
    of queries and keys, and back by five.
    """
    target = each.attribute(r'custom_call_target="([^"]+)"') or ""
    if target != "tpu_custom_call":
        return 0.0, ""
    short = re.match(r"splash_mha_[a-z_]+[a-z]", each.name)
    if not short:
        return 0.0, each.name.partition(".")[0]
    tensors = [
        operand.arrays[0] for operand in _operands(each, inside)
        if operand.arrays and operand.arrays[0].dtype in ("bf16", "f32")
        and len(operand.arrays[0].dims) >= 3
    ]  # fmt: skip
    query, _, value = tensors[:3]
    length, key_dim, value_dim = query.dims[-2], query.dims[-1], value.dims[-1]
    squares = math.prod(query.dims[:-2]) * length * (length + 1) / 2
    backward = "dkv" in short[0] or "dq" in short[0] or "bwd" in short[0]
    per_pair = 3 * key_dim + 2 * value_dim if backward else key_dim + value_dim
    return 2.0 * squares * per_pair, short[0]


def _collective(kind: str, each: Instruction, inside: Computation, devices: int) -> Collective:
    sources = sum(operand.bytes for operand in _operands(each, inside))
    results = each.bytes
    if each.opcode.endswith("-start") and len(each.arrays) > 1:
        results = max(array.bytes for array in each.arrays)
    size = max(sources, results) if kind != "reduce-scatter" else sources
    return Collective(kind, int(size), _group(each, devices), 1.0)


def _group(each: Instruction, devices: int) -> int:
    """Returns how many devices take part together; XLA writes the groups in three ways."""
    if listed := each.attribute(r"replica_groups=\{\{([\d,]+)\}"):
        return len(listed.split(","))
    if compact := each.attribute(r"replica_groups=\[\d+,(\d+)\]"):
        return int(compact)
    if axes := each.attribute(r"replica_groups=mesh\[([^\]]*)\]"):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
        used = each.attribute(r"replica_groups=mesh\[[^{]*\{([^}]*)\}") or ""
        # A part of an axis is written 'axis':(before)size.
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", used)
        return math.prod(int(part) if part else sizes[name] for name, part in parts)
    return devices
