"""Draws every picture file (PNG) of the project, and writes its data beside it as CSV.

A figure that lacks units, n or intervals is refused, so no caller can write one. The colours are
those of Okabe and Ito, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
"""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.report.charts import Point, Series
from models import processes
from models.files import atomic_file, write_atomically

# Without the palette's yellow, which is too light for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS, _DASHES = "os^Dv*", ("-", "--", ":", "-.")
COLUMNS = ("panel", "series", "x", "y", "low", "high")


@dataclasses.dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
      label: the quantity, such as `accuracy`.
      unit: its unit, such as `%`, `tokens` or `updates`; for a bare number, say of what.
      log: whether it is logarithmic.
      bounds: the axis holds its values within these, such as (0, 100) for shares.
    """

    label: str
    unit: str
    log: bool = False
    bounds: tuple[float, float] | None = None

    def __str__(self) -> str:
        return f"{self.label} ({self.unit})"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One diagram of a figure.

    Attributes:
      x, y: the axes.
      series: the lines; their points have 95 % intervals.
      note: n, and what the intervals are over; shown below the diagram.
    """

    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str


def check(panel: Panel) -> None:
    """Raises `ValueError` if a panel lacks units, n or intervals."""
    for axis in (panel.x, panel.y):
        if not axis.label.strip() or not axis.unit.strip():
            raise ValueError(f"the axis {axis.label!r} has no unit: every axis must have one")
    if "n = " not in panel.note:
        raise ValueError(f"the note {panel.note!r} does not say n: begin it with n = ...")
    for series in panel.series:
        bare = [p for p in series.points if p.low is None or p.high is None]
        if bare and not series.faint:
            raise ValueError(
                f"{series.name!r} has {len(bare)} points without an interval: give low and high,"
                " or make it faint if it is what a line with intervals was computed from"
            )


def save(path: Path, panels: Sequence[Panel]) -> None:
    """Writes a figure and, beside it, `NAME.csv` with all its points.

    Only the main process of a job writes.

    Args:
      path: the PNG file.
      panels: the diagrams, from left to right.

    Raises:
      ValueError: see `check`.
    """
    figure = draw(panels)
    if processes.is_main():
        with atomic_file(path, "wb") as file:
            figure.savefig(file, format="png", dpi=120)
        write_atomically(path.with_suffix(".csv"), table(panels))
    plt.close(figure)


def draw(panels: Sequence[Panel]) -> Figure:
    """Returns a figure with a diagram for each panel; raises `ValueError` as `check` does."""
    for panel in panels:
        check(panel)
    width = 9.0 if len(panels) == 1 else 4.6 * len(panels)
    names = [s.name for s in panels[0].series if not s.faint] if panels else []
    figure, axes = plt.subplots(
        1, max(1, len(panels)), figsize=(width, 5.8 if len(panels) == 1 else 3.9), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, panel in zip(axes[0], panels):
        for i, series in enumerate(panel.series):
            _draw_series(axis, series, i if series.colour is None else series.colour)
        axis.set(xlabel=str(panel.x), ylabel=str(panel.y))
        if panel.x.log:
            axis.set_xscale("log")
        if panel.y.bounds is not None:
            low, high = axis.get_ylim()
            axis.set_ylim(max(low, panel.y.bounds[0] - 2), min(high, panel.y.bounds[1] + 2))
        axis.set_title(panel.note, fontsize=8, loc="left", wrap=True)
        axis.grid(alpha=0.3)
    if len(names) > 1:
        axes[0][0].legend(fontsize=8, ncols=1 + len(names) // 8)
    return figure


def table(panels: Sequence[Panel]) -> str:
    """Returns the points of a figure as CSV; the columns are those of `COLUMNS`.

    A panel is named by its y axis. x and y are named by their values' axes in the first lines,
    which begin with `#`, as are n and the intervals.
    """
    text = io.StringIO()
    for panel in panels:
        text.write(f"# {panel.y}: x is {panel.x}, y is {panel.y}. {panel.note}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for panel in panels:
        for series in panel.series:
            name = f"{series.name}, as logged" if series.faint else series.name
            for point in series.points:
                values = (point.x, point.y, point.low, point.high)
                row = ["" if v is None or not math.isfinite(v) else f"{v:.6g}" for v in values]
                writer.writerow([panel.y.label, name, *row])
    return text.getvalue()


def _draw_series(axis: Axes, series: Series, place: int) -> None:
    points = [p for p in series.points if math.isfinite(p.x) and math.isfinite(p.y)]
    if not points:
        return
    colour = PALETTE[place % len(PALETTE)]
    kind = place // len(PALETTE)
    x, y = [p.x for p in points], [p.y for p in points]
    style = _DASHES[kind % len(_DASHES)] if series.line else ""
    if series.faint:
        axis.plot(x, y, color=colour, alpha=0.3, linewidth=0.8)
        return
    few = len(points) <= 20
    marker = _MARKERS[kind % len(_MARKERS)] if few or not series.line else ""
    axis.plot(
        x, y, linestyle=style or "none", marker=marker or "none", color=colour, label=series.name,
        linewidth=1.4, markersize=4.5,
    )  # fmt: skip
    low, high = ([_bound(p, i) for p in points] for i in (0, 1))
    if few or not series.line:
        below = [v - b for v, b in zip(y, low)]
        above = [b - v for v, b in zip(y, high)]
        axis.errorbar(
            x, y, [below, above], linestyle="none", color=colour, capsize=2, linewidth=1, alpha=0.7
        )
    else:
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _bound(point: Point, which: int) -> float:
    value = (point.low, point.high)[which]
    # An unbounded interval (of one value) is drawn as none; the CSV leaves its bounds empty.
    return value if value is not None and math.isfinite(value) else point.y
