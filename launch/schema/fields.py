"""Turns a ConfigDict into a frozen dataclass, and lists everything that is wrong with it.

A schema is a frozen dataclass whose fields are annotated with what they allow:

    steps: Annotated[int, Setting("optimizer steps", unit="steps", least=1)]

The annotation gives the error, the help text and the documentation. What concerns several fields
is checked by the method `check` of a `Section`.
"""

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ml_collections import FieldReference

# Larger whole numbers do not fit the integers of the device, and are always a slip.
LARGEST = 2**31 - 1
# Characters of a wrong value that an error shows.
SHOWN = 80

# The schemas of all recipes, by module and class: each may import much.
RECIPES = (
    "launch.schema.rl:RlConfig",
    "launch.schema.supervised:SftConfig",
    "launch.schema.teacher:TeacherConfig",
    "launch.schema.distill:DistillConfig",
    "launch.schema.tiny:TinyConfig",
)

T = TypeVar("T", bound="Section")


class ConfigError(ValueError):
    """What is wrong with a config.

    Attributes:
      mistakes: one line each.
    """

    def __init__(self, mistakes: Sequence[str]):
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field means and which values it allows.

    Bounds and choices of a tuple or a mapping are those of its items.

    Attributes:
      help: what the field is, in one line.
      unit: of its value, such as "tokens".
      least, most: bounds that are allowed themselves.
      above, below: bounds that are not.
      also: values that are allowed besides, such as -1 for "the rest".
      choices: allowed texts; or "module:NAME", a collection of them in the code that reads them.
      keys: allowed keys of a mapping, given like `choices`.
      empty: whether a text, a tuple or a mapping may be empty.
    """

    help: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()
    choices: str | tuple[str, ...] | None = None
    keys: str | tuple[str, ...] | None = None
    empty: bool = False

    def allowed_choices(self) -> tuple[str, ...]:
        """The texts that the field allows; empty where any text will do."""
        return _looked_up(self.choices)

    def fault(self, value: Any) -> str | None:
        """What a value of the right type must be instead; None where it is allowed."""
        if isinstance(value, str):
            choices = self.allowed_choices()
            if choices and value not in choices:
                return f"must be one of {', '.join(choices)}{_suggestion(value, choices)}"
            if not self.empty and not value.strip():
                return "must not be empty"
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, int) and abs(value) > LARGEST:
                return f"must be between -{LARGEST} and {LARGEST}"
            if not math.isfinite(value):
                return "must be a finite number"
            if value not in self.also and not self._within(value):
                return f"must be {self.bounds()}"
        return None

    def bounds(self) -> str:
        """The numbers that the field allows, in words; empty where all are."""
        parts = [
            f"{word} {bound:g}"
            for word, bound in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if bound is not None
        ]
        parts = [" and ".join(parts)] if parts else []
        return ", or ".join(parts + [f"{value:g}" for value in self.also])

    def _within(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


class Section:
    """Base of every schema: a group of fields that stand together in a config."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together.

        Called where every field by itself is right. The field may be a dotted path.
        """
        yield from ()


class Recipe(Section):
    """Base of the schemas of whole configs.

    Attributes:
      entry_point: who reads the config.
      example: a config of this schema.
    """

    entry_point: ClassVar[str]
    example: ClassVar[str]


def load(schema: type[T], config: Any, path: str = "config") -> T:
    """A frozen dataclass with the values of a ConfigDict or mapping.

    Args:
      path: how the command line names the config.

    Raises:
      ConfigError: every mistake, in one line each: field, value and what is allowed.
    """
    if isinstance(config, schema):
        return config
    mistakes = _Mistakes()
    loaded = _load_section(schema, config, path, mistakes)
    if loaded is not None:
        return loaded
    if issubclass(schema, Recipe) and (other := _recipe_of(config, schema)) is not None:
        raise ConfigError(
            [
                f"--config is a recipe of {other.entry_point}: {schema.entry_point} takes one such"
                f" as {schema.example}"
            ]
        )
    raise ConfigError(mistakes.found or mistakes.following)


def recipes() -> list[type["Recipe"]]:
    """The schemas of all recipes."""
    places = [name.partition(":") for name in RECIPES]
    return [getattr(importlib.import_module(module), name) for module, _, name in places]


def _recipe_of(config: Any, schema: type["Recipe"]) -> type["Recipe"] | None:
    """The other recipe whose fields a config has; None where there is none."""
    if not hasattr(config, "keys"):
        return None
    names = {str(name) for name in config.keys()}
    for each in (schema, *recipes()):
        fields = fields_of(each)
        needed = {f.name for f in fields if f.default is dataclasses.MISSING}
        if needed <= names <= {f.name for f in fields}:
            return None if each is schema else each
    return None


def as_dict(value: Any) -> Any:
    """A loaded config as JSON has it: dicts, lists, numbers, texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_dict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_dict(each) for each in value]
    return value


def given(section: Section) -> dict[str, Any]:
    """The fields of a section that are not None, and so not left to a default elsewhere."""
    return {name: value for name, value in as_dict(section).items() if value is not None}


def sections(section: Section, path: str = "config") -> Iterator[tuple[str, Section]]:
    """A section and all sections in it, with their paths."""
    yield path, section
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from sections(value, f"{path}.{field.name}")


@dataclasses.dataclass(frozen=True)
class FieldType:
    """A field of a schema, taken apart.

    Attributes:
      name: of the field.
      kind: its type, without `None`.
      optional: whether it may be None.
      setting: what it allows.
      default: `dataclasses.MISSING` where a config must have the field.
    """

    name: str
    kind: Any
    optional: bool
    setting: Setting
    default: Any

    @property
    def section(self) -> type[Section] | None:
        """The schema of a field that is a section."""
        is_section = isinstance(self.kind, type) and issubclass(self.kind, Section)
        return self.kind if is_section else None


def fields_of(schema: type[Section]) -> list[FieldType]:
    """The fields of a schema, in order."""
    hints = typing.get_type_hints(schema, include_extras=True)
    found = []
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        kind, setting = hints[field.name], Setting("")
        if typing.get_origin(kind) is typing.Annotated:
            kind, setting = typing.get_args(kind)
        members = _members(kind)
        optional = type(None) in members
        members = [each for each in members if each is not type(None)]
        kind = members[0] if len(members) == 1 else tuple(members)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found.append(FieldType(field.name, kind, optional, setting, default))
    return found


@dataclasses.dataclass
class _Mistakes:
    """What is wrong with a config.

    Attributes:
      found: mistakes.
      following: what is wrong with fields that are computed from others, perhaps from wrong ones.
    """

    found: list[str] = dataclasses.field(default_factory=list)
    following: list[str] = dataclasses.field(default_factory=list)
    _references: set[int] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return len(self.found) + len(self.following)

    def append(self, mistake: str, follows: bool = False) -> None:
        (self.following if follows else self.found).append(mistake)

    def follows(self, config: Any, name: str) -> bool:
        """Whether a wrong field is computed from another, or is one with a field that was wrong.

        ml_collections says so in private attributes alone; without them nothing is lost but that a
        mistake is told several times.
        """
        reference = getattr(config, "_fields", {}).get(name)
        if not isinstance(reference, FieldReference):
            return False
        if vars(reference).get("_ops") or isinstance(vars(reference).get("_value"), FieldReference):
            return True
        told = id(reference) in self._references
        self._references.add(id(reference))
        return told


def _load_section(
    schema: type[T], config: Any, path: str, mistakes: _Mistakes
) -> T | None:
    """The section, or None where there are more mistakes than before."""
    if not hasattr(config, "keys"):
        kind = type(config).__name__
        mistakes.append(f"{path} is {_shown(config)}, of type {kind}: it must be a ConfigDict")
        return None
    fields = {field.name: field for field in fields_of(schema)}
    before = len(mistakes)
    names = [str(name) for name in config.keys()]
    for name in names:
        if name not in fields:
            known = _suggestion(name, fields) or f"; the fields are {', '.join(sorted(fields))}"
            mistakes.append(f"{path}.{name} is unknown{known}")
    values = {}
    # Sections last: a field that a section repeats is named where it stands by itself.
    for name, field in sorted(fields.items(), key=lambda each: each[1].section is not None):
        where = f"{path}.{name}"
        if name not in names:
            if field.default is dataclasses.MISSING:
                mistakes.append(f"{where} is missing: {_described(field)}")
            continue
        try:
            value = config[name]
        except (ArithmeticError, TypeError, ValueError) as error:
            line = f"{where} cannot be computed from other fields: {error}"
            mistakes.append(line, follows=True)
            continue
        if value is None and field.optional:
            values[name] = None
        elif field.section is not None:
            loaded = _load_section(field.section, value, where, mistakes)
            values[name] = loaded
        else:
            try:
                values[name] = _converted(field.kind, value, field.setting)
            except _Fault as fault:
                about = f" ({field.setting.help})" if field.setting.help else ""
                line = f"{where}{fault.at}={_shown(fault.value)}: {fault.text}{about}"
                mistakes.append(line, follows=mistakes.follows(config, name))
    if len(mistakes) > before:
        return None
    section = schema(**values)
    for name, fault in section.check():
        mistakes.append(f"{path}.{name}={_shown(_at(section, name))}: {fault}")
    return section if len(mistakes) == before else None


class _Fault(Exception):
    """A value, or an item of it, that is not allowed."""

    def __init__(self, value: Any, text: str, at: str = ""):
        super().__init__(text)
        self.value, self.text, self.at = value, text, at


def _converted(kind: Any, value: Any, setting: Setting) -> Any:
    """The value as the type has it, checked."""
    if isinstance(kind, tuple):  # A union: the first type that the value is of.
        for each in kind:
            if _is_of(each, value):
                return _converted(each, value, setting)
        raise _Fault(value, f"must be {' or '.join(map(type_name, kind))}")
    if not _is_of(kind, value):
        raise _Fault(value, f"must be {type_name(kind)}")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        _check_filled(value, setting)
        return tuple(_item(arguments[0], each, setting, f"[{i}]") for i, each in enumerate(value))
    if _is_mapping(origin):
        _check_filled(value, setting)
        value = value.to_dict() if hasattr(value, "to_dict") else value
        keys = _looked_up(setting.keys)
        for key in value:
            if keys and key not in keys:
                raise _Fault(key, f"must be one of {', '.join(keys)}{_suggestion(key, keys)}")
        kept = {k: _item(arguments[1], each, setting, f"[{k!r}]") for k, each in value.items()}
        return kept
    if fault := setting.fault(value):
        raise _Fault(value, fault)
    if kind is float:
        return float(value)
    return value


def _item(kind: Any, value: Any, setting: Setting, at: str) -> Any:
    try:
        return _converted(kind, value, setting)
    except _Fault as fault:
        raise _Fault(fault.value, fault.text, at + fault.at) from None


def _check_filled(value: Any, setting: Setting) -> None:
    if not setting.empty and not len(value):
        raise _Fault(value, "must not be empty")


def _is_of(kind: Any, value: Any) -> bool:
    origin = typing.get_origin(kind)
    if kind is Any:
        return True
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if _is_mapping(origin):
        return hasattr(value, "items")
    raise TypeError(f"a schema cannot have fields of type {kind}")


def type_name(kind: Any) -> str:
    """A type in words."""
    simple = {
        bool: "true or false", int: "a whole number", float: "a number", str: "text",
        Any: "anything",
    }  # fmt: skip
    if isinstance(kind, tuple):
        return " or ".join(map(type_name, kind))
    if kind in simple:
        return simple[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return f"a tuple, each item {type_name(arguments[0])}"
    return f"a mapping, each value {type_name(arguments[1])}"


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _members(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return list(typing.get_args(kind))
    return [kind]


def _looked_up(choices: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if isinstance(choices, str):
        module, _, name = choices.partition(":")
        choices = tuple(getattr(importlib.import_module(module), name))
    return choices or ()


def _described(field: FieldType) -> str:
    kind = "a section of the config" if field.section else type_name(field.kind)
    return f"{kind} ({field.setting.help})" if field.setting.help else kind


def _at(section: Any, path: str) -> Any:
    for name in path.split("."):
        section = section[name] if isinstance(section, Mapping) else getattr(section, name)
    return section


def _suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), [str(each) for each in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(as_dict(value)).split())
    except ValueError:  # Python writes no whole number of thousands of digits.
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
