"""Draws the charts of the report page as SVG, each with its data as a table beside it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

# Colours are classes of the page's style: those of Okabe and Ito, which colour-blind readers can
# tell apart, a little darker or lighter where the ground asks for it.
COLOURS = 7
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
WIDTH, HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 26, 40
# More points than this are averaged in groups, and get no marks.
MOST_POINTS, MOST_MARKS = 160, 40
# Longer names of rows are cut; the data beside the chart have them whole.
LONGEST_NAME = 18
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a series; `low` and `high` are its 95 % interval, if it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart; with `line=False`, its points alone; `colour` replaces its place's."""

    name: str
    points: Sequence[Point]
    line: bool = True
    colour: int | None = None
    faint: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its first column names the rows. `shut` shows it only when it is asked for."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    shut: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with a title, a note on units, n and intervals, a legend, and its data."""

    title: str
    note: str
    svg: Markup
    legend: Sequence[tuple[str, Markup]]
    data: Table


def short(value: float | None, digits: int = 3) -> str:
    """Formats a number for people: 1234567 is `1.23M`, no number is `–`."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    for scale, letter in _PREFIXES:
        if size >= scale * (1 - 0.5 * 10**-digits) and size >= 10_000:
            return f"{value / scale:.{digits}g}{letter}"
    if size < 1:
        return f"{value:.{digits}g}"
    whole = len(str(int(size)))
    text = f"{value:.{max(0, digits - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low: float, high: float, log: bool = False, most: int = 5) -> list[float]:
    """Returns round numbers within an interval, for an axis."""
    if log:
        for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
            exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            found = [f * 10.0**e for e in exponents for f in factors]
            found = [each for each in found if low <= each <= high]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / (most + 1))]
        return ticks(low, high)
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(f * unit for f in (1, 2, 5, 10) if f * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


class _Axis:
    """Maps values to places on the picture."""

    def __init__(self, values: Sequence[float], first: float, last: float, log: bool):
        low, high = min(values), max(values)
        self.log, self.first, self.last = log, first, last
        if log:
            low, high = (low / 1.15, high * 1.15)
        elif low == high:
            room = abs(low) * 0.1 or 1.0
            low, high = (0.0 if low == 0 else low - room), high + room
        else:
            room = 0.04 * (high - low)
            low, high = (0.0 if low >= 0 > low - room else low - room), high + room
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        f = math.log10 if self.log else float
        value = min(max(value, self.low), self.high)
        share = (f(value) - f(self.low)) / (f(self.high) - f(self.low))
        return round(self.first + share * (self.last - self.first), 2)


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    note: str = "",
    log_x: bool = False,
    bounds: tuple[float, float] | None = None,
) -> Figure | None:
    """Draws series over x, with intervals as bands along lines and as bars at single points.

    Args:
      title: the figure's title.
      x_label, y_label: what the axes show, with units.
      series: the lines; values that are not finite are left out.
      note: says n, the intervals, and whatever else a reader must know.
      log_x: whether the x axis is logarithmic; then points with x <= 0 are left out.
      bounds: the y axis holds its values within these, such as 0 and 100 for shares.

    Returns:
      The figure; None if there is no point to draw.
    """
    series = [dataclasses.replace(s, points=_clean(s.points, log_x)) for s in series]
    series = [each for each in series if each.points]
    if not series:
        return None
    points = [point for each in series for point in each.points]
    spread = [p.y for p in points]
    spread += [v for p in points for v in (p.low, p.high) if v is not None and math.isfinite(v)]
    if bounds is not None:
        spread = [min(max(value, bounds[0]), bounds[1]) for value in spread]
    x = _Axis([p.x for p in points], _LEFT, WIDTH - _RIGHT, log_x)
    y = _Axis(spread, HEIGHT - _BOTTOM, _TOP, False)
    parts = [_grid(x, y, x_label, y_label)]
    legend: dict[str, Markup] = {}
    for i, curve in enumerate(series):
        colour = (i if curve.colour is None else curve.colour) % (COLOURS * len(_DASHES))
        parts.append(_series(curve, colour, x, y))
        if not curve.faint:
            legend.setdefault(curve.name, _swatch(colour, curve.line))
    rows = [
        [s.name, _plain(p.x), _plain(p.y), *(_plain(v) for v in (p.low, p.high))]
        for s in series
        for p in s.points
    ]
    headers = ["series", x_label, y_label, "95 % from", "95 % to"]
    if all(p.low is None for p in points):
        headers, rows = headers[:3], [row[:3] for row in rows]
    # A legend of one line tells nothing that the title does not.
    shown = list(legend.items()) if len(legend) > 1 else []
    return Figure(title, note, _svg(parts, title), shown, Table(title, headers, rows, shut=True))


def dots(
    title: str,
    label: str,
    rows: Sequence[tuple[str, Any]],
    scale: float = 1,
    note: str = "",
    colours: Sequence[int] | None = None,
) -> Figure | None:
    """Draws figures (`{"mean", "ci95", "n"}`) as dots with intervals, one row for each name.

    The note begins with n, as far as all figures have the same. `colours` has one for each row.
    """
    paired = zip(rows, colours or [0] * len(rows))
    kept = [(row, c) for row, c in paired if row[1] is not None and finite(row[1].get("mean"))]
    if not kept:
        return None
    rows, colours = [row for row, _ in kept], [colour % COLOURS for _, colour in kept]
    bounds = [interval(figure) for _, figure in rows]
    values = [scale * f["mean"] for _, f in rows]
    values += [scale * v for pair in bounds for v in pair if v is not None]
    height, left = 24 * len(rows) + _BOTTOM + 8, _room([name for name, _ in rows])
    axis = _Axis([*values, *([0.0] if min(values) >= 0 else [])], left, WIDTH - 58, False)
    parts = [_x_axis(axis, height - _BOTTOM, 4, label, (left + WIDTH - 58) / 2)]
    for i, ((name, figure), (low, high)) in enumerate(zip(rows, bounds)):
        at, mean = 18 + 24 * i, scale * figure["mean"]
        parts.append(_text(left - 8, at + 4, _cut(name, LONGEST_NAME), "end"))
        if low is not None and high is not None:
            ends = axis(scale * low), axis(scale * high)
            parts.append(f'<path class="bar c{colours[i]}" d="M{ends[0]} {at}H{ends[1]}"/>')
        parts.append(f'<circle class="mark c{colours[i]}" cx="{axis(mean)}" cy="{at}" r="4.5"/>')
        parts.append(_text(WIDTH - 50, at + 4, short(mean), "start"))
    table = [
        [name, short(scale * f["mean"], 5), *(short_or_none(v, scale) for v in pair),
         str(f.get("n", "–")), str(f.get("seeds", 1))]
        for (name, f), pair in zip(rows, bounds)
    ]  # fmt: skip
    headers = ["name", label, "95 % from", "95 % to", "n", "seeds"]
    svg, sizes = _svg(parts, title, height), {figure.get("n") for _, figure in rows}
    caption = f"n = {sizes.pop()}. {note}" if len(sizes) == 1 else note
    return Figure(title, caption, svg, [], Table(title, headers, table, shut=True))


def bars(
    title: str, label: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], note: str
) -> Figure | None:
    """Draws a bar for each name, made of parts; parts of one name have one colour everywhere."""
    names = list(dict.fromkeys(part for _, parts in rows for part, value in parts if value > 0))
    most = max((sum(value for _, value in parts) for _, parts in rows), default=0)
    if not names or most <= 0:
        return None
    height, left = 26 * len(rows) + _BOTTOM + 6, _room([name for name, _ in rows])
    axis = _Axis([0.0, most], left, WIDTH - 58, False)
    drawn = [_x_axis(axis, height - _BOTTOM, 4, label, (left + WIDTH - 58) / 2)]
    for i, (name, parts) in enumerate(rows):
        top, total = 6 + 26 * i, 0.0
        drawn.append(_text(left - 8, top + 13, _cut(name, LONGEST_NAME), "end"))
        for part, value in parts:
            if value > 0:
                a, b = axis(total), axis(total + value)
                label_text = escape(f"{name}, {part}: {short(value)} {label}")
                drawn.append(
                    f'<rect class="fill c{names.index(part) % COLOURS}" x="{a}" y="{top}"'
                    f' width="{max(b - a, 0.5):.2f}" height="18"><title>{label_text}</title></rect>'
                )
            total += max(value, 0)
        drawn.append(_text(axis(total) + 5, top + 13, short(total), "start"))
    legend = [(name, _swatch(i, False, bar=True)) for i, name in enumerate(names)]
    table = [[name, part, _plain(value)] for name, parts in rows for part, value in parts]
    data = Table(title, ["stage", "part", label], table, shut=True)
    return Figure(title, note, _svg(drawn, title, height), legend, data)


def finite(value: Any) -> bool:
    """Tells whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def interval(figure: Any) -> tuple[float | None, float | None]:
    """Returns the 95 % interval of a figure; (None, None) if it has none or an unbounded one."""
    low, high = figure.get("ci95") or (None, None)
    return (low, high) if finite(low) and finite(high) else (None, None)


def short_or_none(value: float | None, scale: float) -> str:
    """Formats `scale * value`; "–" for None."""
    return "–" if value is None else short(scale * value, 5)


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Returns at most `most` points: means over groups of neighbours."""
    size = math.ceil(len(points) / most)
    if size < 2:
        return list(points)
    groups = [points[i : i + size] for i in range(0, len(points), size)]

    def mean(values):
        kept = [value for value in values if value is not None]
        return sum(kept) / len(kept) if kept else None

    return [
        Point(g[-1].x, mean(p.y for p in g) or 0.0, mean(p.low for p in g), mean(p.high for p in g))
        for g in groups
    ]


def _clean(points: Sequence[Point], log_x: bool) -> list[Point]:
    kept = [p for p in points if finite(p.x) and finite(p.y) and (p.x > 0 or not log_x)]
    return thinned(kept)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _room(names: Sequence[str]) -> int:
    """Returns the width that the names of rows need."""
    return 14 + 7 * min(LONGEST_NAME, max(map(len, names)))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _x_axis(x: _Axis, bottom: float, top: float, label: str, middle: float) -> str:
    parts = []
    for value in ticks(x.low, x.high, x.log):
        at = x(value)
        parts.append(f'<path class="grid" d="M{at} {top}V{bottom}"/>')
        parts.append(_text(at, bottom + 15, short(value), "middle"))
    return "".join([*parts, _text(middle, bottom + 33, label, "middle")])


def _grid(x: _Axis, y: _Axis, x_label: str, y_label: str) -> str:
    bottom = HEIGHT - _BOTTOM
    parts = [_x_axis(x, bottom, _TOP, x_label, (_LEFT + WIDTH - _RIGHT) / 2)]
    for value in ticks(y.low, y.high, most=4):
        at = y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {at}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, at + 4, short(value), "end"))
    return "".join([*parts, _text(2, 12, y_label, "start")])


def _series(series: Series, colour: int, x: _Axis, y: _Axis) -> str:
    points = series.points
    style = f"c{colour % COLOURS}" + (" faint" if series.faint else "")
    dash = _DASHES[colour // COLOURS]
    banded = [p for p in points if p.low is not None and p.high is not None]
    parts = []
    if series.line and len(points) > MOST_MARKS and len(banded) > 1:
        upper = " ".join(f"{x(p.x)},{y(p.high or 0)}" for p in banded)
        lower = " ".join(f"{x(p.x)},{y(p.low or 0)}" for p in reversed(banded))
        parts.append(f'<polygon class="band {style}" points="{upper} {lower}"/>')
    else:
        for p in banded:
            ends = f"M{x(p.x)} {y(p.low or 0)}V{y(p.high or 0)}"
            parts.append(f'<path class="whisker {style}" d="{ends}"/>')
    if series.line and len(points) > 1:
        along = " ".join(f"{x(p.x)},{y(p.y)}" for p in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline class="line {style}" points="{along}"{dashed}/>')
    if not series.faint and (len(points) <= MOST_MARKS or not series.line):
        for p in points:
            label_text = escape(f"{series.name}: {short(p.x)}, {short(p.y)}")
            mark = _mark(colour // COLOURS, x(p.x), y(p.y))
            parts.append(
                f'<path class="mark {style}" d="{mark}"><title>{label_text}</title></path>'
            )
    return "".join(parts)


def _mark(kind: int, x: float, y: float) -> str:
    """Returns the outline of a mark: a circle, a square, a triangle or a diamond."""
    if kind == 0:
        return f"M{x - 3:.2f} {y}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z"
    if kind == 1:
        return f"M{x - 3:.2f} {y - 3:.2f}h6v6h-6z"
    if kind == 2:
        return f"M{x} {y - 4:.2f}l4 7h-8z"
    return f"M{x} {y - 4:.2f}l4 4l-4 4l-4 -4z"


def _swatch(colour: int, line: bool, bar: bool = False) -> Markup:
    """Returns a small picture of a line, a mark or a bar for the legend."""
    style, kind = f"c{colour % COLOURS}", colour // COLOURS
    inside = f'<path class="mark {style}" d="{_mark(kind, 13, 6)}"/>'
    if bar:
        inside = f'<rect class="fill {style}" x="7" width="12" height="12"/>'
    elif line:
        dash = f' stroke-dasharray="{_DASHES[kind]}"' if _DASHES[kind] else ""
        inside = f'<path class="line {style}" d="M1 6H25"{dash}/>' + inside
    return Markup(f'<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true">{inside}</svg>')


def _svg(parts: Sequence[str], title: str, height: float = HEIGHT) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="%s; its data'
        ' are in the table below">%s</svg>'
    ) % (title, Markup("".join(parts)))
