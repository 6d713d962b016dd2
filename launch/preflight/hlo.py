"""Reads the text of a compiled XLA program: computations, instructions, shapes, turns of loops."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import cached_property

BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
    "f8e4m3fn": 8, "f8e5m2": 8, "f8e4m3": 8, "token": 0,
}  # fmt: skip
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """The type of one array on one device.

    Attributes:
      dtype: XLA's name of the element type.
      dims: sizes of the dimensions.
      space: 0 is the device's main memory; others lie on the chip, or in the host.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        """The number of elements."""
        total = 1
        for size in self.dims:
            total *= size
        return total

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.elements * BITS.get(self.dtype, 32) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: its name, unique within its computation.
      arrays: the type of its result; several for a tuple.
      opcode: what it does.
      operands: names of the instructions that it reads.
      attributes: all that follows the operands.
      root: whether its result is that of the computation.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """The size of the result in bytes."""
        return sum(array.bytes for array in self.arrays)

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls, without the branches of a conditional."""
        return tuple(_CALLED.findall(self.attributes))

    @cached_property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches of a conditional."""
        found = _BRANCHES.search(self.attributes)
        if found:
            return tuple(name.strip().lstrip("%") for name in found[1].split(","))
        return self.called if self.opcode == "conditional" else ()

    def attribute(self, pattern: str) -> str | None:
        """Returns the first group of a regular expression in the attributes, or None."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions with one result."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Instruction]:
        """The instructions by name."""
        return {each.name: each for each in self.instructions}

    @property
    def root(self) -> Instruction:
        """The instruction whose result is that of the computation."""
        return next(each for each in self.instructions if each.root)

    @cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """The instructions that read each instruction's result."""
        found: dict[str, list[Instruction]] = {}
        for each in self.instructions:
            for name in dict.fromkeys(each.operands):
                found.setdefault(name, []).append(each)
        return {name: tuple(users) for name, users in found.items()}

    @property
    def parameters(self) -> list[Instruction]:
        """The parameters in their order."""
        found = [each for each in self.instructions if each.opcode == "parameter"]
        return sorted(found, key=lambda each: int(each.operands[0]))


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations by name, and the one where it starts."""

    computations: Mapping[str, Computation]
    entry: Computation

    def turns(self, loop: Instruction, caller: Computation) -> float | None:
        """Returns how often the body of a `while` runs; None if that depends on the data."""
        known = loop.attribute(r'known_trip_count":\s*\{"n":"(\d+)"')
        if known:
            return float(known)
        condition = self.computations[loop.attribute(r"condition=%?([\w.\-]+)") or ""]
        body = self.computations[loop.attribute(r"body=%?([\w.\-]+)") or ""]
        test = condition.root
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        index = _element_of_parameter(condition, test.operands[0])
        last = _constant(condition, test.operands[1])
        if last is None:  # The bound may be one of the values that the loop carries.
            carried = _element_of_parameter(condition, test.operands[1])
            last = _carried_constant(self, loop, caller, body, carried)
        start = _carried_start(loop, caller, index)
        step = _carried_step(body, index)
        if index is None or last is None or start is None or step is None or step <= 0:
            return None
        return float(max(0, -(-(last - start) // step)))


def parse(text: str) -> Module:
    """Reads the text of an optimized module.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, name = None, None
    lines: list[str] = []
    for line in text.splitlines():
        if name is None:
            head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
            if head:
                name, lines = head[2], []
                entry = name if head[1] else entry
        elif line.rstrip() == "}":
            computations[name] = Computation(name, tuple(map(_instruction, lines)))
            name = None
        elif re.match(r"\s+(ROOT )?%?[\w.\-]+ = ", line):
            lines.append(line)
        elif lines:  # The attributes of a kernel may be several lines.
            lines[-1] += " " + line
    if entry is None:
        raise ValueError("the compiler's text of the program has no entry computation")
    return Module(computations, computations[entry])


def _instruction(line: str) -> Instruction:
    left, _, rest = re.sub(r"/\*.*?\*/", "", line).strip().partition(" = ")
    root = left.startswith("ROOT ")
    name = left.removeprefix("ROOT ").lstrip("%")
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
    else:
        end = rest.index(" ")
    types, rest = rest[:end], rest[end:].strip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    return Instruction(
        name, tuple(arrays(types)), opcode, tuple(_names(inside)), rest[close + 1 :], root
    )


def arrays(types: str) -> Iterator[Array]:
    """Yields the arrays of a type in text form."""
    for dtype, dims, layout in _ARRAY.findall(types):
        if dtype in BITS:
            space = re.search(r"S\((\d+)\)", layout)
            sizes = tuple(int(size) for size in dims.split(",") if size)
            yield Array(dtype, sizes, int(space[1]) if space else 0)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _names(inside: str) -> Iterator[str]:
    """Yields the operands' names; a constant's value and a parameter's number count as names."""
    for part in re.split(r",(?![^\[{(]*[\]})])", inside):
        word = part.strip().rpartition(" ")[2]
        if word:
            yield word.lstrip("%")


def _behind_copies(computation: Computation, name: str) -> Instruction | None:
    found = computation.by_name.get(name)
    while found is not None and found.opcode in ("copy", "bitcast", "convert", "reshape"):
        found = computation.by_name.get(found.operands[0])
    return found


def _constant(computation: Computation, name: str) -> int | None:
    found = _behind_copies(computation, name)
    if found is None or found.opcode != "constant":
        return None
    return int(found.operands[0]) if re.fullmatch(r"-?\d+", found.operands[0]) else None


def _element_of_parameter(computation: Computation, name: str) -> int | None:
    found = _behind_copies(computation, name)
    if found is None or found.opcode != "get-tuple-element":
        return None
    source = computation.by_name.get(found.operands[0])
    if source is None or source.opcode != "parameter":
        return None
    index = found.attribute(r"index=(\d+)")
    return None if index is None else int(index)


def _carried_start(loop: Instruction, caller: Computation, index: int | None) -> int | None:
    start = _behind_copies(caller, loop.operands[0])
    if index is None or start is None or start.opcode != "tuple":
        return None
    return _constant(caller, start.operands[index])


def _carried_step(body: Computation, index: int | None) -> int | None:
    if index is None or body.root.opcode != "tuple":
        return None
    added = _behind_copies(body, body.root.operands[index])
    if added is None or added.opcode != "add":
        return None
    for one, other in (added.operands, added.operands[::-1]):
        if _element_of_parameter(body, one) == index:
            return _constant(body, other)
    return None


def _carried_constant(
    module: Module, loop: Instruction, caller: Computation, body: Computation, index: int | None
) -> int | None:
    """Returns the constant that a loop carries along unchanged as one of its values."""
    del module
    if index is None or body.root.opcode != "tuple":
        return None
    if _element_of_parameter(body, body.root.operands[index]) != index:
        return None
    return _carried_start(loop, caller, index)
