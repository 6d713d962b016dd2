"""Reads docs/extending.md and does what it says, in a copy of the checkout."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
# Folders of the copy.
COPIED = (
    "benchmarks",
    "configs",
    "docs",
    "launch",
    "models",
    "notebooks",
    "reasoning",
    "rl",
    "tests",
    "train",
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"`([\w./]+\.\w+)`")


@dataclasses.dataclass(frozen=True)
class Step:
    """One block of a guide.

    Attributes:
      kind: "python" (a whole file), "diff" (a change of one) or "bash" (commands).
      file: that it writes or changes; empty for commands.
      text: of the block.
    """

    kind: str
    file: str
    text: str


def read_guides(page: str) -> dict[str, list[Step]]:
    """Title of each guide -> its steps, in order.

    Raises:
      ValueError: a block of Python or diff before which no file is named.
    """
    guides = {}
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        steps, end = [], 0
        for block in _BLOCK.finditer(body):
            kind, text = block.groups()
            before, end = body[end : block.start()].rstrip(), block.end()
            # The sentence that ends in a colon names the file last.
            named = _FILE.findall(before.rpartition("\n\n")[2])
            if kind != "bash" and not (named and before.endswith(":")):
                raise ValueError(f"{title}: no file is named before {text[:60]!r}")
            steps.append(Step(kind, "" if kind == "bash" else named[-1], text))
        guides[title] = steps
    return guides


def apply(steps: list[Step], root: Path) -> None:
    """Writes and changes the files that a guide names; runs nothing.

    Raises:
      ValueError: a new file exists, or the lines that a diff names are not there exactly once.
    """
    for step in steps:
        path = root / step.file
        if step.kind == "python":
            if path.exists():
                raise ValueError(f"{step.file} exists already")
            path.write_text(step.text, encoding="utf-8")
        elif step.kind == "diff":
            lines = step.text.splitlines()
            old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
            new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
            text = path.read_text(encoding="utf-8")
            if (found := f"\n{text}".count(f"\n{old}")) != 1:
                raise ValueError(f"{step.file} has these lines {found} times, not once:\n{old}")
            at = f"\n{text}".index(f"\n{old}")
            path.write_text(text[:at] + new + text[at + len(old) :], encoding="utf-8")


def commands(steps: list[Step]) -> list[str]:
    """The commands of a guide, a line each."""
    return [line for step in steps if step.kind == "bash" for line in step.text.splitlines()]


def copy_checkout(directory: Path) -> Path:
    """A copy of the checkout's code, which guides may change without harm."""
    listed = ["git", "ls-files", "-z", *COPIED]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        source, target = ROOT / name, directory / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in (".py", ".toml", ".md"):
            shutil.copyfile(path, directory / path.name)
    return directory
