"""Draws the results of a run: figures of its stages, search, evaluations, router, verifiers."""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

from launch.report import charts
from launch.report.charts import Figure, Point, Series, Table, interval, short
from launch.report.sources import Run
from reasoning.router.metrics import FIGURES
from reasoning.statistics import share_with_ci

# Metrics in this order, then all others.
ORDER = (
    "*/pass@1", "*/majority@*", "*/accuracy", "*/win_rate*", "format", "language_consistency",
    "self_checks", "reward/*", "response_tokens",
)  # fmt: skip
_PLAIN = ("response_tokens", "reward/*")
_OVER = "Bars are 95 % intervals."


def shown(figure: Mapping[str, Any] | None, scale: float = 1) -> str:
    """Formats a figure as `53.1 [49.0, 57.2]`; "–" for no figure."""
    if figure is None or not charts.finite(figure.get("mean")):
        return "–"
    low, high = interval(figure)
    text = f"{scale * figure['mean']:.1f}"
    if low is None or high is None:
        return f"{text} (one seed)" if figure.get("n", 2) < 2 else text
    return f"{text} [{scale * low:.1f}, {scale * high:.1f}]"


def is_share(metric: str) -> bool:
    """Tells whether a metric is a share, shown in percent."""
    return not any(fnmatch.fnmatch(metric, pattern) for pattern in _PLAIN)


def metrics_of(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the names of all metrics, the most telling first."""
    names = list(dict.fromkeys(name for s in stages.values() for name in (s.get("metrics") or {})))
    first = [name for pattern in ORDER for name in fnmatch.filter(names, pattern)]
    return list(dict.fromkeys([*first, *names]))


def stage_table(run: Run) -> Table | None:
    """Returns a row for each metric and a column for each stage that was evaluated."""
    stages = {name: stage for name, stage in run.stages.items() if stage.get("metrics")}
    if not stages:
        return None
    rows = []
    for metric in metrics_of(stages):
        scale = 100 if is_share(metric) else 1
        cells = [stage["metrics"].get(metric) for stage in stages.values()]
        numbers = sorted({figure["n"] for figure in cells if figure and "n" in figure})
        sizes = "–".join(str(n) for n in (numbers[:1] + numbers[-1:] if numbers[1:] else numbers))
        label = metric + (" (%)" if scale == 100 else "")
        rows.append([label, *(shown(figure, scale) for figure in cells), sizes])
    rows.append(["seconds", *(short(s.get("wall_seconds")) for s in stages.values()), ""])
    return Table("Mean [95 % interval]", ["metric", *stages, "n"], rows)


def stage_figures(run: Run) -> list[Figure]:
    """Returns a chart for each telling metric, with a row for each stage."""
    stages = {name: stage for name, stage in run.stages.items() if stage.get("metrics")}
    if len(stages) < 2:
        return []
    figures = []
    for metric in metrics_of(stages):
        if not any(fnmatch.fnmatch(metric, each) for each in (*ORDER[:4], "format", "reward/*")):
            continue
        share = is_share(metric)
        rows = [(name, stage["metrics"].get(metric)) for name, stage in stages.items()]
        rows = [row for row in rows if row[1] is not None]
        if len(rows) > 1:
            label, scale = ("%", 100) if share else ("reward", 1)
            figures.append(charts.dots(metric, label, rows, scale, _OVER))
    return [figure for figure in figures if figure is not None]


def headline(run: Run) -> str:
    """Says in a sentence what the run did to its first metric; "" if there is nothing to say."""
    stages = {name: stage for name, stage in run.stages.items() if stage.get("metrics")}
    names = [name for name in stages if name != "teacher"]
    for metric in metrics_of(stages) if len(names) > 1 else ():
        have = [name for name in names if metric in stages[name]["metrics"]]
        if len(have) > 1:
            scale, unit = (100, " %") if is_share(metric) else (1, "")
            first, last = (shown(stages[n]["metrics"][metric], scale) for n in (have[0], have[-1]))
            return f"{metric}: {first}{unit} after {have[0]}, {last}{unit} after {have[-1]}."
    return ""


def scaling(records: Sequence[Mapping[str, Any]], what: str = "") -> list[Figure]:
    """Returns accuracy against tokens and against FLOPs, a line for each method over its budgets.

    Args:
      records: `{"method", "budget", "accuracy", "tokens", "flops"}`; a method of an evaluation has
        its budget in its name too.
      what: ends the titles.
    """
    figures = []
    for field, label in (
        ("tokens", "generated tokens a problem"),
        ("flops", "FLOPs a problem"),
    ):
        series = scaling_series(records, field)
        note = f"{_count(records)}Bars are 95 % intervals over problems. The x axis is logarithmic."
        name = f"Accuracy against {'tokens' if field == 'tokens' else 'FLOPs'}{what}"
        figures.append(
            charts.chart(
                name, label, "accuracy (%)", series, note=note, log_x=True, bounds=(0, 100)
            )
        )
    return [figure for figure in figures if figure is not None]


def scaling_series(records: Sequence[Mapping[str, Any]], field: str) -> list[Series]:
    """Returns accuracy in percent against a cost, a line for each method over its budgets.

    Args:
      records: as for `scaling`.
      field: the cost, such as `tokens`.
    """
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        lines.setdefault(str(record.get("method")).partition("@")[0], []).append(record)
    series = []
    for name, own in lines.items():
        points = {}
        for record in own:
            if charts.finite(record.get(field)) and record.get("accuracy"):
                # A method that gives one response has the same cost at every budget.
                points[record[field]] = percent_point(record[field], record["accuracy"])
        series.append(Series(name, [points[x] for x in sorted(points)]))
    return series


def measurements_table(records: Sequence[Mapping[str, Any]], caption: str) -> Table:
    """Returns a row for each method and budget: accuracy and what a problem cost."""
    leading = [n for n in ("model", "task") if len({r.get(n) for r in records}) > 1]
    costs = ("tokens", "prefill_tokens", "verifier_calls", "verifier_tokens", "flops")
    costs = [name for name in costs if any(name in record for record in records)]
    extra = [n for n in ("format", "complete") if any(n in record for record in records)]
    rows = [
        [
            str(r.get("method")), *(str(r.get(n)) for n in leading), str(r.get("budget")),
            shown(r.get("accuracy"), 100), str((r.get("accuracy") or {}).get("n", "–")),
            *(shown(r.get(n), 100) for n in extra), *(short(r.get(n)) for n in costs),
        ]
        for r in records
    ]  # fmt: skip
    headers = ["method", *leading, "budget", "accuracy (%)", "n", *(f"{n} (%)" for n in extra)]
    return Table(caption, [*headers, *(n.replace("_", " ") for n in costs)], rows)


def distillation(run: Run) -> list[Figure]:
    """Returns accuracy against training FLOPs, if stages report them."""
    stages = {n: s for n, s in run.stages.items() if s.get("metrics") and s.get("train_flops")}
    figures = []
    for metric in metrics_of(stages):
        if metric.endswith("/pass@1"):
            series = []
            for name, stage in stages.items():
                figure = stage["metrics"].get(metric)
                if figure is not None:
                    point = percent_point(stage["train_flops"], figure)
                    series.append(Series(name, [point], line=False))
            figures.append(
                charts.chart(
                    f"{metric} against training compute", "training FLOPs", "%", series,
                    note=f"{_OVER} The x axis is logarithmic.", log_x=True, bounds=(0, 100),
                )
            )  # fmt: skip
    return [figure for figure in figures if figure is not None]


def router(report: Mapping[str, Any]) -> tuple[list[Figure], list[Table]]:
    """Returns the curve of each kind of router with the fixed routes, and their tables."""
    kinds, routes = report.get("kinds"), report.get("routes")
    if not isinstance(kinds, Mapping) or not isinstance(routes, Mapping):
        return [], []
    series = router_series(report)
    n = report.get("questions")
    note = f"n = {n} questions, cross-validated. Points are fixed routes. Bars and bands are 95 %"
    note += " intervals over questions."
    title, x = "Accuracy against the mean cost of a question", "tokens a question"
    figure = charts.chart(title, x, "accuracy (%)", series, note=note, log_x=True, bounds=(0, 100))
    rows = []
    for kind, measures in kinds.items():
        cells = [_two_digits(measures.get(name)) for name in FIGURES]
        rows.append([kind, *cells, short(measures.get("ece"))])
    headers = [
        "router", "APGR", "CPT(50)", "CPT(80)", "CPT(95)",
        "share of the best route's tokens for 95 % of its accuracy", "calibration error",
    ]  # fmt: skip
    fixed = [[n, shown(r["accuracy"], 100), short(r["cost"])] for n, r in routes.items()]
    tables = [
        Table("Kinds of routers", headers, rows),
        Table("Fixed routes", ["route", "accuracy (%)", "tokens a question"], fixed),
    ]
    return [figure] if figure is not None else [], tables


def router_series(report: Mapping[str, Any]) -> list[Series]:
    """Returns accuracy in percent against cost: a line for each kind, a point for each route."""
    n = report.get("questions")

    def point(cost: float, accuracy: float) -> Point:
        if not n:
            return Point(cost, 100 * accuracy)
        return percent_point(cost, share_with_ci(accuracy * n, n))

    kinds, series = report["kinds"], []
    for kind, each in kinds.items():
        curve = each["curve"]
        series.append(Series(kind, [point(*at) for at in zip(curve["cost"], curve["accuracy"])]))
    for i, (name, route) in enumerate(report["routes"].items()):
        at = percent_point(route["cost"], route["accuracy"])
        series.append(Series(f"route {name}", [at], line=False, colour=len(kinds) + i))
    return series


def verifiers(run: Run) -> tuple[list[Figure], list[Table]]:
    """Returns how well verifiers find the first wrong step (ProcessBench), and their labels."""
    figures, tables = [], []
    for name, stage in run.stages.items():
        bench = stage.get("process_bench")
        if isinstance(bench, Mapping):
            measures = list(
                dict.fromkeys(n for b in bench.values() for n, f in b.items() if _is_figure(f))
            )
            rows = [
                [m.replace("_", " ") + " (%)", *(shown(b.get(m), 100) for b in bench.values())]
                for m in measures
            ]
            tables.append(Table(f"ProcessBench of {name}", ["measure", *bench], rows))
            for measure in measures[:3]:
                own = [(kind, each.get(measure)) for kind, each in bench.items()]
                title = f"{measure.replace('_', ' ')} by kind of label"
                figures.append(charts.dots(title, "%", own, 100, _OVER))
        labels = stage.get("labels")
        if isinstance(labels, Mapping):
            rows = [[n.replace("_", " "), short(v)] for n, v in labels.items()]
            tables.append(Table(f"Labels of {name}", ["quantity", "value"], rows))
    return [figure for figure in figures if figure is not None], tables


def findings(run: Run) -> Table | None:
    """Returns the differences between stages that the report lists."""
    found = run.report.get("findings") or []
    rows = [[str(each.get("finding")), shown(each), str(each.get("seeds", ""))] for each in found]
    return (
        Table("Differences in points", ["finding", "difference", "seeds"], rows) if rows else None
    )


def claims(run: Run) -> Table | None:
    """Returns the claims about the methods that the report judges, with every condition."""
    rows = []
    for claim in run.report.get("claims") or []:
        rows.append([f"{claim['claim']}: {claim['text']}", "", "", claim["verdict"]])
        rows += [
            [f"– {part['part']}", shown(part), short(part["least"]), part["verdict"]]
            for part in claim["parts"]
        ]
    columns = ["claim and its conditions", "measured", "wanted at least", "verdict"]
    return Table("Claims", columns, rows) if rows else None


def percent_point(x: float, figure: Mapping[str, Any]) -> Point:
    """Returns a share with its interval as a point in percent."""
    low, high = interval(figure)
    mean = figure["mean"] if charts.finite(figure.get("mean")) else math.nan
    if low is None or high is None:
        return Point(x, 100 * mean)
    return Point(x, 100 * mean, 100 * low, 100 * high)


def _count(records: Sequence[Mapping[str, Any]]) -> str:
    numbers = {(record.get("accuracy") or {}).get("n") for record in records} - {None}
    return f"n = {numbers.pop()} problems. " if len(numbers) == 1 else ""


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and "ci95" in value


def _two_digits(figure: Any) -> str:
    if not _is_figure(figure) or figure.get("mean") is None:
        return "no gap"
    low, high = interval(figure)
    text = f"{figure['mean']:.2f}"
    return text if low is None or high is None else f"{text} [{low:.2f}, {high:.2f}]"
