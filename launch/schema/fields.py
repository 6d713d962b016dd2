"""Defines the building blocks of a schema: sections, and fields that say which values they allow.

A schema is a frozen dataclass. The annotation of each field says which values it allows:

    steps: Annotated[int, Setting("optimizer steps", unit="steps", least=1)]

Errors, help texts and documentation come from the annotation. The method `check` of a `Section`
checks several fields together. `loading` turns a ConfigDict into such a dataclass.
"""

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

# Larger whole numbers do not fit the device's integers, and are always a mistake.
LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field means and which values it allows.

    Bounds and choices of a tuple or a mapping are those of its items.

    Attributes:
      help: the field's meaning, in one line.
      unit: the unit of the value, such as "tokens".
      least, most: inclusive bounds.
      above, below: exclusive bounds.
      also: further allowed values, such as -1 for "the rest".
      choices: allowed texts; or "module:NAME", their collection in the code that reads them.
      options: whether `?` and options may follow one of the choices; the reader checks the options.
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
    options: bool = False
    keys: str | tuple[str, ...] | None = None
    empty: bool = False

    def allowed_choices(self) -> tuple[str, ...]:
        """Returns the texts that the field allows; empty if it allows any text."""
        return looked_up(self.choices)

    def fault(self, value: Any) -> str | None:
        """Says what a value of the right type must be instead; returns None if it is allowed."""
        if isinstance(value, str):
            choices = self.allowed_choices()
            chosen = value.partition("?")[0] if self.options else value
            if choices and chosen not in choices:
                return f"must be one of {', '.join(choices)}{suggestion(value, choices)}"
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
        """Returns the allowed numbers in words; empty if the field allows all."""
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
    """Base of every schema: a group of fields of a config."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together.

        It is called only if each field by itself is right. The field may be a dotted path.
        """
        yield from ()


class Recipe(Section):
    """Base of the schemas of whole configs.

    Attributes:
      entry_point: the program that reads the config.
      example: a config of this schema.
    """

    entry_point: ClassVar[str]
    example: ClassVar[str]


def as_dict(value: Any) -> Any:
    """Returns a loaded config in JSON's types: dicts, lists, numbers, texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_dict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_dict(each) for each in value]
    return value


def given(section: Section) -> dict[str, Any]:
    """Returns the fields of a section that are not None; the others have defaults elsewhere."""
    return {name: value for name, value in as_dict(section).items() if value is not None}


def sections(section: Section, path: str = "config") -> Iterator[tuple[str, Section]]:
    """Yields (path, section) for a section and all sections in it."""
    yield path, section
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from sections(value, f"{path}.{field.name}")


@dataclasses.dataclass(frozen=True)
class FieldType:
    """A field of a schema, taken apart.

    Attributes:
      name: the field's name.
      kind: the field's type, without `None`.
      optional: whether the value may be None.
      setting: which values are allowed.
      default: the default; `dataclasses.MISSING` if a config must have the field.
    """

    name: str
    kind: Any
    optional: bool
    setting: Setting
    default: Any

    @property
    def section(self) -> type[Section] | None:
        """The schema of a field that is a section; None for other fields."""
        is_section = isinstance(self.kind, type) and issubclass(self.kind, Section)
        return self.kind if is_section else None


def fields_of(schema: type[Section]) -> list[FieldType]:
    """Returns the fields of a schema, in order."""
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


def is_of(kind: Any, value: Any) -> bool:
    """Tells whether a value has the type of a field."""
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
    if is_mapping(origin):
        return hasattr(value, "items")
    raise TypeError(f"a schema cannot have fields of type {kind}")


def type_name(kind: Any) -> str:
    """Returns a type in words."""
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


def is_mapping(origin: Any) -> bool:
    """Tells whether the origin of a generic type is a mapping."""
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _members(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return list(typing.get_args(kind))
    return [kind]


def looked_up(choices: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the texts of `Setting.choices`; imports them if they are given as "module:NAME"."""
    if isinstance(choices, str):
        module, _, name = choices.partition(":")
        choices = tuple(getattr(importlib.import_module(module), name))
    return choices or ()


def suggestion(name: str, known: Any) -> str:
    """Returns the nearest known name as the end of an error; empty if none is near."""
    close = difflib.get_close_matches(str(name), [str(each) for each in known], 1)
    return f"; did you mean {close[0]}?" if close else ""
