"""Writes `report.html`: one file that shows a run, without scripts and without other files."""

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from launch.report import responses, results, training
from launch.report.charts import Figure, Table, short
from launch.report.responses import Card, Node
from launch.report.sources import Run, leaves, read_run
from models.files import write_atomically

PAGE_FILE = "report.html"
# Seconds after which the page of a run that goes on reloads itself.
REFRESH_SECONDS = 15


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page; what is empty is left out, and so is an empty section."""

    title: str
    intro: str = ""
    tables: Sequence[Table | None] = ()
    figures: Sequence[Figure] = ()
    groups: Sequence[tuple[str, Sequence[Figure]]] = ()
    cards: Sequence[Card] = ()
    card_groups: Sequence[tuple[str, Sequence[Card]]] = ()
    trees: Sequence[tuple[str, str, str, Sequence[Node]]] = ()
    lines: Sequence[str] = ()
    code: str = ""

    @property
    def id(self) -> str:
        """The section's anchor."""
        return self.title.lower().replace(" ", "-")

    def is_empty(self) -> bool:
        """Tells whether there is nothing to show."""
        return not (any(self.tables) or self.figures or self.groups or self.cards
                    or self.card_groups or self.trees or self.lines or self.code)  # fmt: skip


def write_page(directory: str | os.PathLike, live: bool = False) -> Path:
    """Builds the page of a run from its folder and writes it there; returns its path.

    Args:
      directory: the run's folder.
      live: the run goes on: the page says so and loads itself anew.

    Raises:
      ValueError, OSError: see `read_run`.
    """
    run = read_run(directory)
    path = run.path / PAGE_FILE
    write_atomically(path, build(run, live))
    return path


def build(run: Run, live: bool = False) -> str:
    """Returns the page of a run as HTML."""
    return render(
        f"Run {run.name}", state_of(run, live), results.headline(run), sections(run), live
    )


def render(
    title: str, state: str, headline: str, parts: Sequence[Section], live: bool = False
) -> str:
    """Returns a page as HTML; all text in it is escaped."""
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            state=state,
            headline=headline,
            sections=[part for part in parts if not part.is_empty()],
            refresh=REFRESH_SECONDS if live else None,
            now=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        )
    )


def sections(run: Run) -> list[Section]:
    """Returns the sections of a run's page; `Section.is_empty` tells which it has no data for."""
    evaluations = run.report.get("evaluations") or []
    routed, router_tables = results.router(run.report)
    checked, verifier_tables = results.verifiers(run)
    time_figure = training.time_spent(run)
    return [
        Section("Warnings", lines=[f"{stage}: {line}" for stage, line in run.warnings]),
        Section(
            "Stages",
            "Every stage answers the same held-out problems. Brackets are 95 % intervals: over"
            " problems with one seed, over training runs with several.",
            tables=[results.stage_table(run), results.claims(run), results.findings(run)],
            figures=results.stage_figures(run),
        ),
        Section(
            "Evaluations",
            tables=[results.measurements_table(evaluations, "Mean [95 % interval] over problems")]
            if evaluations
            else [],
            figures=_evaluated(evaluations),
        ),
        Section("Distillation", figures=results.distillation(run)),
        Section(
            "Learning curves",
            "All that was logged is in metrics.jsonl of each stage's folder.",
            groups=training.curves(run),
        ),
        Section("Response length", figures=training.lengths(run)),
        Section(
            "Inference-time scaling",
            tables=[_shut(results.measurements_table(run.search, "All methods and budgets"))]
            if run.search
            else [],
            figures=results.scaling(run.search),
        ),
        Section(
            "Search tree",
            "Finished paths of one problem, by their steps. Equal beginnings are one branch; paths"
            " that a method gave up on the way are not kept. The chosen path is marked.",
            trees=responses.search_trees(run),
        ),
        Section(
            "Router",
            "APGR is the share of the gap between the cheapest and the best route that a router"
            " recovers, on average over costs. CPT(x) is the share of questions that must take the"
            " costly route to recover x % of the gap. Brackets are 95 % intervals over questions.",
            figures=routed,
            tables=router_tables,
        ),
        Section("Verifiers", figures=checked, tables=verifier_tables),
        Section(
            "Samples before and after",
            "Held-out problems; those whose verdict changed come first. All graded responses are in"
            " graded.jsonl.",
            cards=responses.graded_cards(run),
        ),
        Section(
            "Samples while training",
            "Responses of the first and of the last logged steps, with what they earned and why.",
            card_groups=responses.training_cards(run),
        ),
        Section("Where the time went", figures=[time_figure] if time_figure else []),
        Section("What ran where", tables=[_machine(run)]),
        Section("Command", code=_commands(run), tables=[_settings(run)]),
    ]


def state_of(run: Run, live: bool) -> str:
    """Says in a line how far the run has come."""
    last = run.last
    if live:
        trained = run.trainings[-1] if run.trainings else None
        at = ""
        if trained is not None and trained.records:
            at = f" {trained.stage} is at step {trained.records[-1].get('step')}."
        return f"This run is still going on.{at} The page loads itself anew."
    took = ""
    if isinstance(seconds := last.get("seconds"), int | float):
        took = f" The last command took {_duration(seconds)}."
    if last.get("state") == "interrupted":
        return f"Interrupted ({last.get('reason')}). The same command continues it.{took}"
    if last.get("state") == "failed":
        return f"The last command ended with an error: {last.get('reason')}.{took}"
    if last.get("state") == "complete" or (run.report and not last):
        return f"Complete.{took}"
    return "Not complete, and not running: the same command continues it."


def _evaluated(records: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Returns the charts of each pair of model and task."""
    pairs = list(dict.fromkeys((r.get("model"), r.get("task")) for r in records))
    figures = []
    for model, task in pairs:
        own = [r for r in records if (r.get("model"), r.get("task")) == (model, task)]
        if len(own) > 1:
            figures += results.scaling(own, f": {model} on {task}" if len(pairs) > 1 else "")
    return figures


def _machine(run: Run) -> Table | None:
    found = {**(run.report.get("machine") or {}), **(run.last.get("machine") or {})}
    found |= {"started": run.last.get("started"), "code": run.last.get("code")}
    rows = [[name, str(value)] for name, value in found.items() if value not in (None, "")]
    rows += [[name, str(v)] for name, v in (run.last.get("versions") or {}).items()]
    return Table("Machine, versions", ["what", "value"], rows) if rows else None


def _commands(run: Run) -> str:
    """Returns the commands that worked in the folder, each once, with the last one last."""
    commands = [str(each.get("command") or "") for each in run.invocations]
    last_first = dict.fromkeys(filter(None, reversed(commands)))
    return "\n".join(reversed(last_first))


def _settings(run: Run) -> Table | None:
    config = run.report.get("config") or run.report.get("settings")
    if not config:
        config = next((t.settings for t in run.trainings if t.settings), None)
    if not config:
        return None
    rows = [[name, str(value)] for name, value in leaves(config).items()]
    return Table("All settings", ["field", "value"], rows, shut=True)


def _shut(table: Table) -> Table:
    return dataclasses.replace(table, shut=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{short(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("launch.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
