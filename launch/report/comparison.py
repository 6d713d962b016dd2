"""Compares runs on one page: figures side by side, curves over each other, settings that differ."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.report import charts, page, results, training
from launch.report.charts import Figure, Point, Series, Table
from launch.report.page import Section
from launch.report.sources import Run, leaves
from models.files import write_atomically


def write_comparison(path: Path, runs: Sequence[Run], live: Sequence[bool]) -> None:
    """Writes the page that compares runs.

    Args:
      path: the HTML file.
      runs: the runs, in the order of the columns.
      live: whether each run still goes on; if one does, the page says so.
    """
    names = distinct_names([run.path for run in runs])
    named = dict(zip(names, runs))
    states = [f"{n}: {page.state_of(r, going)}" for (n, r), going in zip(named.items(), live)]
    write_atomically(path, page.render("Comparison of runs", " ".join(states), "", parts(named)))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns the shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"{paths[0]} is given twice: give each run once")


def parts(runs: Mapping[str, Run]) -> list[Section]:
    """Returns the sections of the page that compares runs of these names."""
    warnings = [f"{name}, {s}: {line}" for name, run in runs.items() for s, line in run.warnings]
    figures = {name: dict(measured(run)) for name, run in runs.items()}
    return [
        Section("Runs", tables=[_overview(runs)]),
        Section("Warnings", lines=warnings),
        Section(
            "Figures",
            "Brackets are 95 % intervals: over problems with one seed, over training runs with"
            " several. n is that of each run.",
            tables=[side_by_side(figures)],
            figures=_dots(figures),
        ),
        Section(
            "Learning curves", "Lines of one colour are seeds of one run.", groups=_curves(runs)
        ),
        Section("Scaling", figures=_scaling(runs)),
        Section("Router", figures=_routers(runs)),
        Section("Settings that differ", tables=[differences(runs)]),
    ]


def measured(run: Run) -> Iterator[tuple[str, tuple[Mapping[str, Any], float]]]:
    """Yields (name, (figure, scale)) for everything that a run measured with an interval."""
    for name, stage in run.stages.items():
        metrics = stage.get("metrics") or {}
        for metric in results.metrics_of({name: stage}):
            yield f"{name}: {metric}", (metrics[metric], 100 if results.is_share(metric) else 1)
        for kind, bench in (stage.get("process_bench") or {}).items():
            for measure, figure in bench.items():
                if isinstance(figure, Mapping) and "ci95" in figure:
                    yield f"{name}, {kind}: {measure.replace('_', ' ')}", (figure, 100)
    for record in run.search:
        yield f"search, {record['method']}@{record.get('budget')}", (record["accuracy"], 100)
    evaluations = run.report.get("evaluations") or []
    models = {record.get("model") for record in evaluations}
    for record in evaluations:
        # Runs of different models are compared too, so a run's only model is not in the name.
        model = f"{record.get('model')}, " if len(models) > 1 else ""
        method = f"{str(record.get('method')).partition('@')[0]}@{record.get('budget')}"
        yield f"{model}{record.get('task')}, {method}", (record["accuracy"], 100)
    for kind, figures in (run.report.get("kinds") or {}).items():
        yield f"router {kind}: APGR", (figures["apgr"], 100)


def side_by_side(
    figures: Mapping[str, Mapping[str, tuple[Mapping[str, Any], float]]],
) -> Table | None:
    """Returns a row for each figure and a column for each run; n follows each figure."""
    rows = []
    for name in dict.fromkeys(name for own in figures.values() for name in own):
        cells, percent = [], False
        for own in figures.values():
            figure, scale = own.get(name, (None, 1))
            percent = percent or scale == 100
            count = f", n = {figure['n']}" if figure and "n" in figure else ""
            cells.append(results.shown(figure, scale) + count)
        rows.append([name + (" (%)" if percent else ""), *cells])
    return Table("Mean [95 % interval]", ["figure", *figures], rows) if rows else None


def differences(runs: Mapping[str, Run]) -> Table | None:
    """Returns the settings in which the runs differ; None if there are none."""
    settings = {
        name: leaves(run.report.get("config") or run.report.get("settings") or {})
        for name, run in runs.items()
    }
    names = dict.fromkeys(field for own in settings.values() for field in own if field)
    rows = []
    for field in names:
        values = [str(own[field]) if field in own else "–" for own in settings.values()]
        if len(set(values)) > 1:
            rows.append([field, *values])
    return Table("Settings", ["field", *runs], rows) if rows else None


def _overview(runs: Mapping[str, Run]) -> Table:
    rows = []
    for name, run in runs.items():
        machine = {**(run.report.get("machine") or {}), **(run.last.get("machine") or {})}
        seconds = run.report.get("wall_seconds") or run.last.get("seconds")
        cells = (
            seconds and charts.short(seconds), machine.get("processor"), machine.get("devices"),
            run.last.get("code"), run.last.get("command"),
        )  # fmt: skip
        rows.append([name, *(str(cell) if cell else "–" for cell in cells)])
    headers = ["run", "seconds", "processor", "devices", "code", "command"]
    return Table("Machine and command", headers, rows)


def _dots(figures: Mapping[str, Mapping[str, tuple[Mapping[str, Any], float]]]) -> list[Figure]:
    """Returns a chart for each figure that several runs have and that leads its stage."""
    drawn = []
    for name in dict.fromkeys(name for own in figures.values() for name in own):
        have = [(run, own[name]) for run, own in figures.items() if name in own]
        telling = name.endswith(("/pass@1", "/accuracy", "response_tokens", "APGR", "f1"))
        if len(have) > 1 and (telling or ": reward/" in name):
            scale = have[0][1][1]
            rows = [(run, figure) for run, (figure, _) in have]
            label = "%" if scale == 100 else "tokens" if name.endswith("tokens") else "reward"
            colours = [list(figures).index(run) for run, _ in rows]
            note = "Bars are 95 % intervals."
            drawn.append(charts.dots(name, label, rows, scale, note, colours))
    return [figure for figure in drawn if figure is not None]


def _curves(runs: Mapping[str, Run]) -> list[tuple[str, list[Figure]]]:
    found = []
    for stage in dict.fromkeys(each.stage for run in runs.values() for each in run.trainings):
        labelled = [
            (name, each, i)
            for i, (name, run) in enumerate(runs.items())
            for each in run.trainings
            if each.stage == stage
        ]
        figures = [
            training.curve(title, metric, unit, scale, labelled)
            for metric, title, unit, scale in training.wanted([each for _, each, _ in labelled])
        ]
        kept = [figure for figure in figures if figure is not None]
        if kept:
            found.append((stage, kept))
    return found


def _scaling(runs: Mapping[str, Run]) -> list[Figure]:
    """Returns accuracy against tokens of each method that several runs measured."""
    lines: dict[str, dict[str, dict[float, Point]]] = {}
    for name, run in runs.items():
        for record in [*run.search, *(run.report.get("evaluations") or [])]:
            task = f", {record['task']}" if "task" in record else ""
            method = str(record["method"]).partition("@")[0] + task
            point = results.percent_point(record.get("tokens") or 0.0, record["accuracy"])
            lines.setdefault(method, {}).setdefault(name, {})[point.x] = point
    figures = []
    for method, own in lines.items():
        if len(own) > 1:
            series = [
                Series(name, [own[name][x] for x in sorted(own[name])], colour=i)
                for i, name in enumerate(runs)
                if name in own
            ]
            figures.append(
                charts.chart(
                    method, "generated tokens a problem", "accuracy (%)", series, log_x=True,
                    note="Bars are 95 % intervals. The x axis is logarithmic.", bounds=(0, 100),
                )
            )  # fmt: skip
    return [figure for figure in figures if figure is not None]


def _routers(runs: Mapping[str, Run]) -> list[Figure]:
    """Returns the curve of each run's best kind of router, if several runs have one."""
    series = []
    for i, (name, run) in enumerate(runs.items()):
        kinds, best = run.report.get("kinds") or {}, run.report.get("best_kind")
        kind = best if best in kinds else next(iter(kinds), None)
        if kind is not None:
            curve = kinds[kind]["curve"]
            points = [Point(x, 100 * y) for x, y in zip(curve["cost"], curve["accuracy"])]
            series.append(Series(f"{name}, {kind}", points, colour=i))
    if len(series) < 2:
        return []
    note = "Cross-validated curve of each run's best kind; its interval is that of APGR above."
    title, x = "Accuracy against the mean cost of a question", "tokens a question"
    figure = charts.chart(title, x, "accuracy (%)", series, note=note, log_x=True, bounds=(0, 100))
    return [figure] if figure is not None else []
