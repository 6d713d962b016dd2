"""Figures of a page in Markdown, and what its JSON files say that they are.

A page names a JSON file for the text behind it, up to the next heading or name:

    <!-- figures: results/tiny.json -->

The file holds `tables`, a list of `{"columns": [...], "rows": {label: [cell, ...]}}` in the order
of the page, and `text`, how a paragraph begins -> its figures in order. A cell or an item of the
text is a number, a list or mapping of them, null, or words. `{"mean", "ci95"}` is a figure as in
`report.json`, and a share where the row's label ends in (%) or the table has `"percent": true`.
`{"of": [file, number of a table, row, column, ...]}` is a cell of another file, or a part of it.

A file with a `command` has `processor`, `seeds` and `version`, too, and the page must say them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# No part of a name such as R1, pass@1 or bfloat16.
NUMBER = re.compile(r"(?<![\w.@/-])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![\w]|\.\w|-\w)")
# What a section of measured figures says first.
ABOUT = ("command", "processor", "seeds", "version")
_NAMED = re.compile(r"^<!-- figures: (\S+) -->$")
# Code, targets of links, papers and names of versions hold no figures.
NO_FIGURES = re.compile(
    r"`[^`]*`|<!--.*?-->|\]\([^)]*\)|https?://\S+|arXiv:[\d.]+"
    r"|95 % intervals?|Python \d\.\d+\+?|Apache-2\.0|v5p:\w+"
)


class Block(NamedTuple):
    """A paragraph, an item of a list or a table of a page.

    Attributes:
      source: the JSON file that is named for it, or None.
      lines: of a paragraph one, joined.
      line: number of the first one in the page.
    """

    source: str | None
    lines: list[str]
    line: int

    @property
    def is_table(self) -> bool:
        return self.lines[0].startswith("|")


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, without headings and code."""
    source, lines, start, fenced = None, [], 0, False
    for number, line in enumerate([*page.splitlines(), ""], 1):
        boundary = not line.strip() or line.startswith(("#", "- ", "```", "<!--"))
        table = line.startswith("|")
        if lines and (boundary or fenced or table != lines[0].startswith("|")):
            yield Block(source, lines if lines[0].startswith("|") else [" ".join(lines)], start)
            lines = []
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            if named := _NAMED.match(line):
                source = named[1]
            elif line.startswith("#"):
                source = None
            elif line.strip():
                start = start if lines else number
                lines.append(line.removeprefix("- ").strip())


def numbers(text: str) -> list[float]:
    """The figures of a text."""
    return [float(x.replace(",", "")) for x in NUMBER.findall(NO_FIGURES.sub(" ", text))]


def shown(value: Any, percent: bool, folder: Path) -> list[float]:
    """The figures that a page must show for a value of a JSON file."""
    if value is None:
        return []
    if isinstance(value, str):
        return numbers(value)
    if isinstance(value, Mapping) and "of" in value:
        return shown(*look_up(value["of"], folder), folder)
    if isinstance(value, Mapping) and "ci95" in value:
        scale = 100 if percent else 1
        return [round(scale * value["mean"], 1), *(float(round(scale * x)) for x in value["ci95"])]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [x for each in value for x in shown(each, percent, folder)]
    return [float(value)]


def look_up(place: list[Any], folder: Path) -> tuple[Any, bool]:
    """A cell, or a part of one, and whether its shares are shown in percent."""
    file, number, label, column, *parts = place
    table = read(folder / file)["tables"][number]
    value = table["rows"][label][table["columns"].index(column) - 1]
    for part in parts:
        value = value[part]
    return value, in_percent(label, table)


def in_percent(label: str, table: Mapping[str, Any]) -> bool:
    """Whether the figures of a row are shares that a page shows in percent."""
    return label.endswith("(%)") or table.get("percent", False)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def faults(page: Path) -> list[str]:
    """Where a page and its JSON files disagree, a line each."""
    found: list[str] = []
    tables: dict[str, int] = {}
    begun: dict[str, set[str]] = {}
    for block in blocks(page.read_text(encoding="utf-8")):
        where, text = f"{page.name}:{block.line}", " ".join(block.lines)
        if block.source is None:
            if figures := numbers(text):
                found.append(f"{where}: no JSON file is named for {figures}")
            continue
        path = page.parent / block.source
        content = read(path)
        keys = begun.setdefault(block.source, set())
        count = tables.setdefault(block.source, 0)
        if block.is_table:
            tables[block.source] += 1
            if count < len(content["tables"]):
                found += _table_faults(block, content["tables"][count], where, path.parent)
            continue
        starts = [key for key in _paragraphs(content) if text.startswith(key)]
        keys.update(starts)
        if starts and starts[0].endswith(": "):
            if text != starts[0] + (expected := content[starts[0][:-2].lower()]):
                found.append(f"{where}: {path.name} says {expected}")
        elif figures := numbers(text):
            expected = shown(content["text"][starts[0]], True, path.parent) if starts else []
            if figures != expected:
                found.append(f"{where}: {figures} here, {expected} in {path.name}")
    for source, keys in begun.items():
        content = read(page.parent / source)
        found += [f"{source}: no line begins {key!r}" for key in _paragraphs(content) - keys]
        if (count := len(content.get("tables", []))) != tables[source]:
            found.append(f"{source}: {count} tables there, {tables[source]} in {page.name}")
    return found


def _paragraphs(content: Mapping[str, Any]) -> set[str]:
    """How the lines begin that a JSON file knows of."""
    about = {f"{name.capitalize()}: " for name in ABOUT} if ABOUT[0] in content else set()
    return about | set(content.get("text", {}))


def _table_faults(
    block: Block, table: Mapping[str, Any], where: str, folder: Path
) -> Iterator[str]:
    header, _, *rows = (cells(line) for line in block.lines)
    if header != table["columns"]:
        yield f"{where}: columns {header} here, {table['columns']} in the JSON file"
    if [row[0] for row in rows] != list(table["rows"]):
        yield f"{where}: rows {[row[0] for row in rows]} here, {list(table['rows'])} in JSON"
        return
    for label, *texts in rows:
        values = table["rows"][label]
        if len(values) != len(texts):
            yield f"{where}: {label} has {len(texts)} cells here, {len(values)} in JSON"
        for name, text, value in zip(header[1:], texts, values):
            expected = shown(value, in_percent(label, table), folder)
            if numbers(text) != expected:
                yield f"{where}: {label}, {name}: {numbers(text)} here, {expected} in JSON"
