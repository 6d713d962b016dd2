"""Shows every field of a recipe: type, value, allowed values, unit and meaning.

    python -m launch.schema.table > docs/settings.md

writes the page of all recipes, from the schemas and the default configs.
"""

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from launch.schema.fields import FieldType, Section, as_dict, fields_of, type_name
from launch.schema.loading import load, recipes


class Row(NamedTuple):
    """A field of a config."""

    field: str
    value: Any
    kind: str
    allowed: str
    unit: str
    help: str


def rows(
    section: Section, path: str = "", seen: dict[type[Section], str] | None = None
) -> Iterator[Row]:
    """Yields the fields of a loaded config, with dotted paths for those in sections.

    Args:
      section: the config.
      path: the path of the section, with a dot at its end.
      seen: schema -> path where it was shown; a schema that was shown before gets one row.
    """
    for field in fields_of(type(section)):
        value, where = getattr(section, field.name), f"{path}{field.name}"
        if field.section is not None:
            if seen is not None and field.section in seen:
                yield Row(f"{where}.*", None, "", "", "", f"as `{seen[field.section]}.*`")
            elif value is not None:
                if seen is not None:
                    seen[field.section] = where
                yield from rows(value, f"{where}.", seen)
            continue
        setting = field.setting
        choices = setting.allowed_choices()
        yield Row(
            where,
            as_dict(value),
            type_name(field.kind) + (" or None" if field.optional else ""),
            ", ".join(choices) if choices else setting.bounds(),
            setting.unit,
            setting.help,
        )


def raw_rows(
    schema: type[Section], config: Any, path: str = ""
) -> Iterator[tuple[type[Section], Row]]:
    """Yields the fields of an unchecked config with their sections; imports no code that reads it.

    Fields that are sections come after the others. Where the allowed texts stand in the code, a row
    names their place instead.

    Args:
      schema: of the config.
      config: a ConfigDict; None shows the defaults of a section that is left out.
      path: see `rows`.
    """
    fields = sorted(fields_of(schema), key=lambda field: field.section is not None)
    for field in fields:
        value = _raw_value(field, config)
        where = f"{path}{field.name}"
        if field.section is not None:
            yield from raw_rows(field.section, value, f"{where}.")
            continue
        setting = field.setting
        allowed = setting.bounds()
        if isinstance(setting.choices, str):
            allowed = f"one of {setting.choices.replace(':', '.')}"
        elif setting.choices:
            allowed = ", ".join(setting.choices)
        kind = type_name(field.kind) + (" or None" if field.optional else "")
        yield schema, Row(where, value, kind, allowed, setting.unit, setting.help)


def _raw_value(field: FieldType, config: Any) -> Any:
    default = None if field.default is dataclasses.MISSING else field.default
    value = default if config is None else config.get(field.name, default)
    if hasattr(value, "to_dict"):
        return value if field.section is not None else value.to_dict()
    return as_dict(value)


def print_table(section: Section) -> None:
    """Prints a loaded config with one line for each field, in the command line's form."""
    for row in rows(section):
        about = ", ".join(part for part in (row.allowed or row.kind, row.unit) if part)
        print(f"config.{row.field}={row.value!r}  [{about}]  {row.help}")


def page() -> str:
    """Returns the settings of every recipe in Markdown."""
    parts = [
        "# Settings\n\nWritten by `python -m launch.schema.table > docs/settings.md`; a test"
        " compares. Values are the defaults of the config named. `--config.FIELD=VALUE` sets a"
        " field. Of equal sections only the first is shown."
    ]
    for recipe in recipes():
        config = recipe.example.removesuffix(".py").replace("/", ".")
        section = load(recipe, _complete(importlib.import_module(config).get_config()))
        parts.append(f"## `{recipe.entry_point}`: {recipe.example}")
        parts.append("\n".join(_lines(section)))
    return "\n\n".join(parts) + "\n"


def _complete(config: Any) -> Any:
    """Gives a config without a teacher an example server, so that it can be shown."""
    if "teacher" in config and "server" in config.teacher:
        config.teacher.server, config.teacher.model = "http://localhost:8000", "NAME"
        config.task = "gsm8k"
    return config


def _lines(section: Section) -> Iterator[str]:
    yield "| field | value | type | allowed | unit | what it is |"
    yield "|---|---|---|---|---|---|"
    for row in rows(section, seen={}):
        value = f"`{row.value!r}`".replace("|", "\\|") if row.kind else ""
        yield (
            f"| `{row.field}` | {value} | {row.kind} | {row.allowed} | {row.unit} | {row.help} |"
        )


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(page(), end="")
