"""Defines, reads and checks the flag `--config` of entry points; each mistake is one line."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from absl import flags
from ml_collections import config_flags

from launch import schema
from launch.schema.table import print_table

T = TypeVar("T", bound=schema.Recipe)

CONFIGS = Path("configs")
# The default of `--config`, which absl does not tell: it keeps the loaded config.
DEFAULTS: dict[str, str] = {}
# The messages of Python and absl about a value of the wrong type, and ours instead.
WORDS = {
    r"invalid literal for int\(\).*": "must be a whole number",
    r"could not convert string to float.*": "must be a number",
    r"\('?Non-boolean.*|Non-boolean.*": "must be true or false",
    r"Failed to parse .* as a ConfigDict.*": "is a section: set one of its fields",
}


def define_config(
    default: str,
    help_text: str = "the recipe",
    flag_values: flags.FlagValues = flags.FLAGS,
) -> Any:
    """Defines `--config`, a config file with its argument, and `--print_config`.

    Args:
      default: the default of `--config`; "" makes the flag required.
      help_text: the start of the flag's help.
      flag_values: where the flags are defined.

    Returns:
      The flag, for `read_config`.
    """
    DEFAULTS["config"] = default
    flags.DEFINE_bool(
        "print_config", False, "print every field with type, value, unit and meaning, and stop",
        flag_values=flag_values,
    )  # fmt: skip
    arguments = sys.argv[1:]
    path = config_path(arguments)
    if path is not None and not asks_for_help(arguments):
        _check_path(path)
    try:
        return config_flags.DEFINE_config_file(
            "config", default or None, f"{help_text}; --print_config shows its fields",
            flag_values=flag_values,
        )  # fmt: skip
    except (Exception, SystemExit) as error:  # Whatever a user's file or an override raises.
        _refuse(error, path or default)


def read_config(flag: Any, recipe: type[T], print_it: bool | None = None) -> T:
    """Returns the checked config of the command line; with `--print_config` prints it and exits.

    Args:
      flag: what `define_config` returned.
      recipe: the schema of the config.
      print_it: whether to print the config and exit; None does what `--print_config` says.

    Raises:
      ConfigError: the config has mistakes.
      ValueError: there is no config.
    """
    config = flag.value
    if config is None:
        raise ValueError(f"--config is missing: give one, such as --config={recipe.example}")
    loaded = schema.load(recipe, config)
    if flags.FLAGS.print_config if print_it is None else print_it:
        print_table(loaded)
        sys.exit(0)
    return loaded


def parse_flags(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses flags like absl, but prints a mistake as one line on stderr and exits with 1."""
    try:
        return flag_values(argv)
    except (Exception, SystemExit) as error:  # Whatever a user's file or an override raises.
        if asks_for_help(argv[1:]):
            raise
        _refuse(error, config_path(argv[1:]) or "")


def explain(error: BaseException, path: str) -> str:
    """Returns one line that says what is wrong with a command line.

    Args:
      error: the error that parsing the command line has raised.
      path: the path of the config file.
    """
    inner: Any = error
    if isinstance(error, AttributeError):  # ml_collections raises it for an unknown field.
        while isinstance(inner, Exception) and inner.args:
            inner = inner.args[0]
        if "get_config" in str(inner):
            return f"--config={path} has no function get_config"
        name, _, hint = " ".join(str(inner).split()).partition(" Did you mean ")
        close = hint.partition(" instead of ")[0].strip('"')
        return f"the config has no field {name}" + (f"; did you mean {close}?" if close else "")
    text = str(error)
    if "Error whilst parsing config file" in text:
        text = text.strip().splitlines()[-1].strip()
        return re.sub(r"^\w*Error: ", "", text)
    text = " ".join(text.split())
    if isinstance(error, flags.Error):
        text = text.removeprefix("flag ")
        for pattern, words in WORDS.items():
            text = re.sub(rf"^(--\S+?=[^:]*): {pattern}$", rf"\1: {words}", text)
        return text
    if isinstance(error, SystemExit):
        text = f"it calls sys.exit({error.code})"
    return f"--config={path} does not load: {type(error).__name__}: {text}"


def _refuse(error: BaseException, path: str) -> NoReturn:
    if os.environ.get("ERGO_TRACEBACK"):
        raise error
    print(f"error: {explain(error, path)}", file=sys.stderr)
    sys.exit(1)


def config_path(arguments: list[str]) -> str | None:
    """Returns the last value of `--config` among the arguments; None if it is not given."""
    found = None
    for i, argument in enumerate(arguments):
        name, sign, value = argument.partition("=")
        if name in ("--config", "-config"):
            found = value if sign else "".join(arguments[i + 1 : i + 2])
    return found


def asks_for_help(
    arguments: list[str], names: Sequence[str] = ("help", "helpshort", "helpfull", "helpxml")
) -> bool:
    """Tells whether one of the arguments is a flag of the given names."""
    given = {each.lstrip("-") for each in arguments if each.startswith("-")}
    return not given.isdisjoint(names)


def _check_path(given: str) -> None:
    """Ends the program if `--config` names no Python file."""
    path = given.partition(":")[0]
    if Path(path).is_file() and path.endswith(".py"):
        return
    if not path:
        fault = "is empty"
    elif Path(path).is_file():
        fault = "is no Python file"
    elif Path(path).is_dir():
        fault = "is a folder"
    else:
        fault = "does not exist"
    names = [
        each.stem for each in sorted(CONFIGS.glob("*.py")) if "def get_config(" in each.read_text()
    ]
    close = difflib.get_close_matches(Path(path).stem, names, 1)
    hint = (
        f"did you mean {CONFIGS / close[0]}.py?"
        if close
        else (f"the recipes in {CONFIGS} are {', '.join(names)}")
    )
    print(f"error: --config={given} {fault}; {hint}", file=sys.stderr)
    sys.exit(1)
