"""Prints `--help` of an entry point: purpose, example, flags, and the fields of its config.

It runs before the flags are parsed and imports no JAX, so it answers within a second. The text is
made from the module's docstring, the flags and the schema of the config.
"""

import importlib
import importlib.util
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from absl import flags

from launch import schema
from launch.parts.command_line import DEFAULTS, asks_for_help, config_path
from launch.schema.loading import fits
from launch.schema.table import raw_rows

# Flags of all entry points, which are defined outside of them.
SHARED = ("print_config", "distributed")
KINDS = {
    "string": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "comma separated list of strings": "texts, separated by commas",
    "multi string": "text, may be given several times", "config object": "FILE.py[:ARGUMENT]",
}  # fmt: skip
_EXAMPLE = re.compile(r"^(?: {4}.*\n)+", re.M)


def print_if_asked(recipes: Sequence[type[schema.Recipe]]) -> None:
    """Prints the help of the running program and exits with 0, if the command line asks for it.

    Args:
      recipes: schemas of the configs that the program reads. Without `--config=FILE` the help shows
        the fields and defaults of each one's example config.
    """
    arguments = sys.argv[1:]
    if not asks_for_help(arguments, ("help", "h", "helpshort", "?")):
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    print("\n".join(lines(sys.modules["__main__"], recipes, config_path(arguments), width)))
    sys.exit(0)


def lines(
    module: ModuleType, recipes: Sequence[type[schema.Recipe]], config: str | None, width: int = 100
) -> Iterator[str]:
    """Yields the help of an entry point, line by line.

    Args:
      module: the entry point; its flags are defined.
      recipes: see `print_if_asked`.
      config: the value of `--config`; None if it is not given.
      width: of the text, in columns.
    """
    purpose, example, rest = _parts(inspect.cleandoc(module.__doc__ or ""))
    yield from (purpose, "", "Example:", "", example)
    if rest:
        yield from ("", rest)
    yield from ("", "Flags, as --NAME=VALUE, with their defaults:", "")
    for flag in _flags_of(module, SHARED if recipes else ()):
        yield from _flag(flag, width)
    default = DEFAULTS.get("config", "")
    for recipe in recipes:
        path = config or default or recipe.example
        values = _load(path)
        if fits(recipe, {str(name) for name in values}):
            yield from (
                "",
                f"Fields of --config={path}, as --config.FIELD=VALUE, with their values:",
            )
            yield from _fields(recipe, values, width)
    if recipes:
        yield from ("", "--print_config prints the fields of a run, with all names that they allow,"
                    " and stops.")  # fmt: skip


def _parts(text: str) -> tuple[str, str, str]:
    """Returns a docstring's first sentence, its first indented block, and what follows."""
    found = _EXAMPLE.search(text + "\n")
    if found is None:
        raise ValueError(f"the docstring has no example: {text[:60]!r}")
    return text[: found.start()].strip(), found[0].rstrip(), text[found.end() :].strip()


def _flags_of(module: ModuleType, shared: Sequence[str]) -> list[flags.Flag]:
    """Returns `--config`, the program's own flags, and the shared ones of those names."""
    # A program that is run as `__main__` is known by its path.
    own = flags.FLAGS.get_flags_for_module(module) + flags.FLAGS.get_flags_for_module(sys.argv[0])
    found = {name: flags.FLAGS[name] for name in ("config",) if name in flags.FLAGS}
    for flag in own:
        if flag.name not in SHARED and not flag.name.startswith("config."):
            found[flag.name] = flag
    return [*found.values(), *(flags.FLAGS[name] for name in shared)]


def _flag(flag: flags.Flag, width: int) -> Iterator[str]:
    choices = getattr(flag.parser, "enum_values", None)
    kind = ", ".join(choices) if choices else KINDS.get(flag.flag_type(), flag.flag_type())
    default = flag.default
    if isinstance(default, list | tuple):
        default = ",".join(map(str, default))
    elif isinstance(default, bool):
        default = str(default).lower()
    elif flag.name == "config":
        default = DEFAULTS.get("config", "")
    shown = "(required)" if _is_required(flag) else "none" if default is None else str(default)
    # absl adds the choices at the start, and how to give a list at the end.
    about = re.sub(r"^<[^>]*>: |;\s+repeat this option.*$", "", flag.help, flags=re.S)
    yield from _entry(f"  --{flag.name}={shown or repr('')}", f"[{kind}] {about}", width)


def _is_required(flag: flags.Flag) -> bool:
    if flag.name == "config":
        return not DEFAULTS["config"]
    checks = [each.checker for each in flag.validators if hasattr(each, "checker")]
    return flag.default is None and any(not check(None) for check in checks)


def _fields(recipe: type[schema.Recipe], values: Any, width: int) -> Iterator[str]:
    """Yields the fields of a config, with a heading for each section.

    Where a kind of section was shown before, the fields are not explained again.
    """
    group, explained = None, {}
    for kind, row in raw_rows(recipe, values):
        section = row.field.rpartition(".")[0]
        first = explained.setdefault(kind, section)
        if section != group:
            group = section
            same = "" if first == section else f" (what they are: see {first})"
            yield from ("", f"  {section or 'general'}{same}")
        about = ", ".join(part for part in (row.kind, row.allowed, row.unit) if part)
        text = f"[{about}] {row.help}" if first == section else ""
        yield from _entry(f"    {row.field}={row.value!r}", text, width)


def _entry(head: str, text: str, width: int) -> Iterator[str]:
    """Yields a name with its value and what it is; further lines are indented."""
    yield from textwrap.wrap(
        f"{head.strip()}  {' '.join(text.split())}", width,
        initial_indent=" " * (len(head) - len(head.lstrip())), subsequent_indent=" " * 10,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _load(path: str) -> Any:
    """Returns what `get_config` of a config file returns.

    Raises:
      SystemExit: the file does not load, with the reason in one line.
    """
    file, _, argument = path.partition(":")
    try:
        spec: Any = importlib.util.spec_from_file_location("config_of_help", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config(*([argument] if argument else []))
    except Exception as error:  # Whatever a user's file raises.
        sys.exit(f"error: --config={path} does not load: {type(error).__name__}: {error}")
