"""Turns a ConfigDict into a frozen dataclass, and lists all its mistakes."""

import dataclasses
import importlib
import typing
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeVar

from ml_collections import FieldReference

from launch.schema.fields import (
    FieldType,
    Recipe,
    Section,
    Setting,
    as_dict,
    fields_of,
    is_mapping,
    is_of,
    looked_up,
    suggestion,
    type_name,
)

# Characters of a wrong value that an error shows.
SHOWN = 80
# The schemas of all recipes as module:class, since importing them takes time.
RECIPES = (
    "launch.schema.rl:RlConfig",
    "launch.schema.supervised:SftConfig",
    "launch.schema.teacher:TeacherConfig",
    "launch.schema.distill:DistillConfig",
    "launch.schema.tiny:TinyConfig",
    "launch.schema.small:SmallConfig",
    "launch.schema.router:RouterConfig",
)

T = TypeVar("T", bound=Section)


class ConfigError(ValueError):
    """A config has mistakes.

    Attributes:
      mistakes: one line for each mistake.
    """

    def __init__(self, mistakes: Sequence[str]):
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def load(schema: type[T], config: Any, path: str = "config") -> T:
    """Returns a frozen dataclass with the values of a ConfigDict or mapping.

    Args:
      schema: the dataclass.
      config: the values; an instance of `schema` is returned unchanged.
      path: the config's name on the command line.

    Raises:
      ConfigError: one line for each mistake: field, value and what is allowed.
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
                f"--config is a recipe of {other.entry_point}: {schema.entry_point} takes one"
                f" such as {schema.example}"
            ]
        )
    raise ConfigError(mistakes.found or mistakes.following)


def recipes() -> list[type[Recipe]]:
    """Returns the schemas of all recipes."""
    places = [name.partition(":") for name in RECIPES]
    return [getattr(importlib.import_module(module), name) for module, _, name in places]


def _recipe_of(config: Any, schema: type[Recipe]) -> type[Recipe] | None:
    """Returns the other recipe whose fields a config has; None if there is none."""
    if not hasattr(config, "keys"):
        return None
    names = {str(name) for name in config.keys()}
    for each in (schema, *recipes()):
        if fits(each, names):
            return None if each is schema else each
    return None


def fits(schema: type[Section], names: Set[str]) -> bool:
    """Tells whether fields of these names, and no others, make a config of the schema."""
    fields = fields_of(schema)
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    return needed <= names <= {field.name for field in fields}


@dataclasses.dataclass
class _Mistakes:
    """The mistakes of a config.

    Attributes:
      found: mistakes of fields by themselves.
      following: mistakes of fields that are computed from others, perhaps from wrong ones.
    """

    found: list[str] = dataclasses.field(default_factory=list)
    following: list[str] = dataclasses.field(default_factory=list)
    _references: set[int] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return len(self.found) + len(self.following)

    def append(self, mistake: str, follows: bool = False) -> None:
        (self.following if follows else self.found).append(mistake)

    def follows(self, config: Any, name: str) -> bool:
        """Tells whether a wrong field is computed from another, or shares its value with one.

        Only private attributes of ml_collections say so. Without them a mistake would be
        listed several times, and nothing worse.
        """
        reference = getattr(config, "_fields", {}).get(name)
        if not isinstance(reference, FieldReference):
            return False
        if vars(reference).get("_ops") or isinstance(vars(reference).get("_value"), FieldReference):
            return True
        found = id(reference) in self._references
        self._references.add(id(reference))
        return found


def _load_section(schema: type[T], config: Any, path: str, mistakes: _Mistakes) -> T | None:
    """Returns the section, or None if it has mistakes."""
    if not hasattr(config, "keys"):
        kind = type(config).__name__
        mistakes.append(f"{path} is {_shown(config)}, of type {kind}: it must be a ConfigDict")
        return None
    fields = {field.name: field for field in fields_of(schema)}
    before = len(mistakes)
    names = [str(name) for name in config.keys()]
    for name in names:
        if name not in fields:
            known = suggestion(name, fields) or f"; the fields are {', '.join(sorted(fields))}"
            mistakes.append(f"{path}.{name} is unknown{known}")
    values = {}
    # Sections come last, so that an error names a repeated field outside the section.
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
    """Checks a value and converts it to its field's type."""
    if isinstance(kind, tuple):  # A union: takes the first type that fits the value.
        for option in kind:
            if is_of(option, value):
                return _converted(option, value, setting)
        raise _Fault(value, f"must be {' or '.join(map(type_name, kind))}")
    if not is_of(kind, value):
        raise _Fault(value, f"must be {type_name(kind)}")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        _check_filled(value, setting)
        return tuple(_item(arguments[0], each, setting, f"[{i}]") for i, each in enumerate(value))
    if is_mapping(origin):
        _check_filled(value, setting)
        value = value.to_dict() if hasattr(value, "to_dict") else value
        keys = looked_up(setting.keys)
        for key in value:
            if keys and key not in keys:
                raise _Fault(key, f"must be one of {', '.join(keys)}{suggestion(key, keys)}")
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


def _described(field: FieldType) -> str:
    kind = "a section of the config" if field.section else type_name(field.kind)
    return f"{kind} ({field.setting.help})" if field.setting.help else kind


def _at(section: Any, path: str) -> Any:
    for name in path.split("."):
        section = section[name] if isinstance(section, Mapping) else getattr(section, name)
    return section


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(as_dict(value)).split())
    except ValueError:  # Python writes no whole number of thousands of digits.
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
