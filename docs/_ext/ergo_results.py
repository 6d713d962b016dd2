"""Inserts measured figures from docs/results/*.json into pages, so that no page holds a copy.

    {res}`tiny > math/pass@1 (%) > r1_zero`              95.9 % [92, 100]
    {res}`search > beam > 64 > tokens`                   4,480

names a file, the row and the column of one of its tables, and a part of the cell where it has
several. The directives `results` (rows and columns of a table) and `run-figure` (a drawing, see
`ergo_figures`) end with the command, processor, seeds and version of the measurement. A name that a
file does not have is a warning, and warnings end the build.
"""

import json
from pathlib import Path
from typing import Any

import ergo_figures
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

RESULTS = Path(__file__).parents[1] / "results"


def read(name: str) -> dict[str, Any]:
    """Returns docs/results/NAME.json.

    Raises:
      ValueError: there is no such file.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"no file {path.name} in docs/results")
    return json.loads(path.read_text(encoding="utf-8"))


def table_of(name: str, rows: list[str], columns: list[str]) -> dict[str, Any]:
    """Returns the table of a file that has all the rows and columns.

    Raises:
      ValueError: no table has them.
    """
    for table in read(name).get("tables", []):
        if set(rows) <= set(table["rows"]) and set(columns) <= set(table["columns"]):
            return table
    raise ValueError(f"{name}.json has no table with rows {rows} and columns {columns}")


def cell(table: dict[str, Any], row: str, column: str) -> Any:
    """Returns a cell of a table; its first column holds the names of rows."""
    return table["rows"][row][table["columns"].index(column) - 1]


def is_share(table: dict[str, Any], row: str) -> bool:
    """Tells whether the figures of a row are shares, which pages show in percent."""
    return bool(table.get("percent")) or row.endswith("(%)")


def shown(value: Any, share: bool, unit: bool = True) -> str:
    """Returns a figure as text.

    Args:
      value: a number, null, words, `{"mean", "ci95"}`, a list, or a mapping of parts.
      share: whether `{"mean", "ci95"}` is a share, to be shown in percent.
      unit: whether the percent sign is written.
    """
    if value is None:
        return ""
    if isinstance(value, dict) and "mean" in value:
        scale, places = (100, 1) if share else (1, 1)
        low, high = (f"{bound * scale:.0f}" for bound in value["ci95"])
        if not share and max(map(abs, value["ci95"])) < 2:
            places, (low, high) = 2, [f"{bound:.2f}" for bound in value["ci95"]]
        percent = " %" if share and unit else ""
        return f"{value['mean'] * scale:.{places}f}{percent} [{low},\u00a0{high}]"
    if isinstance(value, dict):
        return " / ".join(shown(each, share, unit) for each in value.values())
    if isinstance(value, list):
        return ", ".join(shown(each, share, unit) for each in value)
    if isinstance(value, int | float):
        return f"{value:,}"
    return str(value)


class Result(SphinxRole):
    """The role `res`: one measured figure."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Returns the figure as text."""
        parts = [part.strip() for part in self.text.split(" > ")]
        try:
            name, row, column, *rest = parts
            table = table_of(name, [row], [column])
            value = cell(table, row, column)
            for part in rest:
                value = value[int(part) if isinstance(value, list) else part]
            text = shown(value, is_share(table, row))
            if not text:
                raise ValueError("the cell is empty")
        except (ValueError, KeyError, TypeError, IndexError) as error:
            message = self.inliner.reporter.warning(f"{{res}}`{self.text}`: {error}")
            return [nodes.problematic(self.text, self.text)], [message]
        # A space that does not break keeps figure and unit on one line.
        text = text.replace(" %", "\u00a0%")
        return [nodes.inline(text, text, classes=["measured"])], []


def about(name: str) -> str:
    """Returns where figures come from: file, command, processor, seeds and version."""
    content = read(name)
    return (
        f"Measured by {content['command']} on {content['processor']}; seeds: {content['seeds']};"
        f" version {content['version']}. Data: {{download}}`{name}.json </results/{name}.json>`."
    )


class _Measured(SphinxDirective):
    required_arguments = 1

    def parsed(self, lines: list[str]) -> list[nodes.Node]:
        holder = nodes.container(classes=["measured-block"])
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, holder)
        return [holder]


class Results(_Measured):
    """The directive `results`: rows and columns of a table, or of all its rows and columns.

    Options `rows` and `columns` are names separated by semicolons; a table is looked for that has
    them all.
    """

    option_spec = {"rows": directives.unchanged, "columns": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Returns the table and where it comes from."""
        names = {
            key: [each.strip() for each in self.options.get(key, "").split(";") if each.strip()]
            for key in ("rows", "columns")
        }
        name = self.arguments[0]
        try:
            table = table_of(name, names["rows"], names["columns"])
        except ValueError as error:
            return [self.state.document.reporter.warning(str(error), line=self.lineno)]
        columns = names["columns"] or table["columns"][1:]
        lines = [
            f"| {table['columns'][0] or 'figure'} | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for row in names["rows"] or table["rows"]:
            cells = [shown(cell(table, row, each), is_share(table, row), False) for each in columns]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        return self.parsed([*lines, "", f"*{about(name)}*"])


class RunFigure(_Measured):
    """The directive `run-figure`: a drawing of `ergo_figures`, by name."""

    def run(self) -> list[nodes.Node]:
        """Returns the picture and where it comes from."""
        name = self.arguments[0]
        try:
            figure = ergo_figures.FIGURES[name]
            path = ergo_figures.draw(name)
        except (KeyError, ValueError) as error:
            return [self.state.document.reporter.warning(f"{name}: {error!r}", line=self.lineno)]
        lines = [f"```{{figure}} /{path.relative_to(RESULTS.parent)}", f":alt: {figure.alt}", ""]
        return self.parsed([*lines, f"{figure.caption} {about(figure.data)}", "```"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the role and the directives to Sphinx."""
    app.add_role("res", Result())
    app.add_directive("results", Results)
    app.add_directive("run-figure", RunFigure)
    return {"parallel_read_safe": True}
