"""Finds the commands of the documentation: blocks of code and commands in running text.

A block that cannot run where the tests run has a line above it that says why:

    <!-- not run: needs a network -->

Its commands are then only read: with the flags and the config checks of their entry points.
"""

import ast
import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# tests/test_extending.py follows this page to the letter, so all of its blocks are executed.
FOLLOWED = ROOT / "docs" / "extending.md"
# Pages that tools write have no blocks of their own.
_BLOCK = re.compile(r"^( *)```(bash|python)\n(.*?)^ *```$", re.M | re.S)
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*$")
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?python -m launch\.run_[^`]+)`", re.S)
_FLAG = re.compile(r"(?<![\w-])--[a-z_][\w.]*(?:=[^\s(),]*[^\s(),.])?")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      page: the file, from the checkout.
      line: its first line in the page.
      language: "bash" or "python".
      text: the code.
      reason: why it is not run; None if it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


# Folders of pages that the build of the documentation site writes.
WRITTEN = {"_build", "api", "commands"}


def pages() -> list[Path]:
    """The pages whose blocks are looked at."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    docs = [page for page in docs if page.relative_to(ROOT).parts[1] not in WRITTEN]
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]
    return [page for page in found if page.is_file()]


def blocks(page: Path) -> list[Block]:
    """The blocks of bash and Python in a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        indent, language, code = match.groups()
        code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        mark = _MARK.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 2
        name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
        found.append(Block(name, line, language, code, mark[1] if mark else None))
    return found


def inline_commands(page: Path) -> list[list[str]]:
    """The commands of entry points in a page's running text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    # Capitals and dots stand for anything.
    found = [each for each in _INLINE.findall(text) if not re.search(r"[A-Z]{4}|\.\.\.", each)]
    return [shlex.split(each) for each in found]


def commands(block: Block) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The commands of a block of bash, each with the flags that comments beside or below it name.

    Yields:
      (words, flags): here-documents and comments are left out of the words; flags of one line of
        comment belong together.
    """
    text = re.sub(r"<<'?(\w+)'?([^\n]*)\n.*?^\1$", r"\2", block.text, flags=re.M | re.S)
    text = text.replace("\\\n", " ")
    words: list[str] = []
    flags: list[list[str]] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            flags.append(_FLAG.findall(line))
            continue
        if found := shlex.split(line, comments=True):
            if words:
                yield words, flags
            words, flags = found, [_FLAG.findall(line.partition(" #")[2])]
    if words:
        yield words, flags


def entry_point(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """(module, arguments) of a command that runs `python -m module`; None for others.

    What follows `--` is a command of its own, as in a script that starts a job. There, a file of
    another machine stands for train.jsonl.
    """
    if "--" in words:
        words = [re.sub(r"=/(data|shared)/\S+\.jsonl$", "=train.jsonl", word) for word in words]
        words = words[words.index("--") + 1 :]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0], re.S):
        words = words[1:]
    if len(words) > 2 and Path(words[0]).name.startswith("python") and words[1] == "-m":
        return words[2], list(words[3:])
    return None


def check_commands(asked: Sequence[tuple[str, Sequence[str]]], folder: Path) -> list[str]:
    """Reads command lines as their entry points would, and returns a fault for each, or "".

    Args:
      asked: (module, arguments) of each command.
      folder: the checkout, or a copy of it, in which the commands would run.
    """
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(asked), cwd=folder, text=True,
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def python_faults(block: Block) -> list[str]:
    """What is wrong with a block of Python, without running it: syntax, and names it imports."""
    try:
        tree = ast.parse(block.text)
    except SyntaxError as error:
        return [str(error)]
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            path = ROOT / node.module.replace(".", "/")
            module = path.with_suffix(".py") if path.with_suffix(".py").exists() else None
            package = path / "__init__.py" if path.is_dir() else None
            if (ROOT / node.module.split(".")[0]).is_dir() and not (module or package):
                faults.append(f"there is no module {node.module}")
            for alias in node.names if module or package else ():
                text = (module or package).read_text(encoding="utf-8")
                beside = (path / f"{alias.name}.py").exists() or (path / alias.name).is_dir()
                if not beside and not re.search(rf"\b{alias.name}\b", text):
                    faults.append(f"{node.module} has no {alias.name}")
    return faults


def _read_one(module: str, arguments: Sequence[str]) -> None:
    """Reads a command line in this process, and ends it: with 0 if nothing is wrong."""
    import runpy

    from absl import app, flags

    from launch.parts import command_line, runtime

    def read(main, *given, positional=False, **_):
        positional = positional or True in given
        rest = command_line.parse_flags(sys.argv)
        if len(rest) > 1 and not positional:
            raise SystemExit(f"unexpected argument {rest[1]!r}")
        if "shipped" in flags.FLAGS and flags.FLAGS.shipped:
            raise SystemExit(0)  # The preflight of all shipped configs reads no other.
        if "print_config" in flags.FLAGS:
            # The entry point itself loads and checks the config, prints it and stops.
            flags.FLAGS.print_config = True
            main(rest)
            raise SystemExit("the config was not read first")
        raise SystemExit(0)

    runtime.run_main = read
    app.run = read
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")
    raise SystemExit(f"{module} reads no command line")


def _read_all() -> None:
    """Reads commands from standard input, each in a process of its own, and prints the faults."""
    sys.path[0] = os.getcwd()  # In place of the folder of this file, which has a `launch`, too.
    for name in ("launch.parts.runtime", "launch.schema.rl", "launch.schema.tiny", "rl.variants"):
        importlib.import_module(name)  # What the processes share.
    faults = []
    for module, arguments in json.load(sys.stdin):
        receiver, sender = os.pipe()
        if (child := os.fork()) == 0:
            os.dup2(sender, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 1
            try:
                _read_one(module, arguments)
            except SystemExit as end:
                if isinstance(end.code, str):
                    os.write(2, end.code.encode())
                code = 0 if end.code in (0, None) else 1
            except BaseException as error:
                mistakes = getattr(error, "mistakes", [f"{type(error).__name__}: {error}"])
                os.write(2, "; ".join(mistakes).encode())
            os._exit(code)
        os.close(sender)
        with os.fdopen(receiver, encoding="utf-8", errors="replace") as pipe:
            told = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        faults.append("" if code == 0 else told.strip() or f"exit code {code}")
    print(json.dumps(faults))


if __name__ == "__main__":
    _read_all()
