"""Draws the figures of the pages from docs/results/*.json, as SVG in docs/_figures.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; markers and
hatches tell series apart without colour. Error bars are 95 % intervals.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "_figures"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#E69F00", "#666666")
MARKERS = "osD^vPX*"
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--", "oo")
STYLE = {
    "svg.hashsalt": "ergo", "svg.fonttype": "path", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "figure.dpi": 100,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
      data: name of the JSON file in docs/results.
      paint: draws it from the file's tables.
      alt: what it shows, for those who cannot see it.
      caption: what is drawn, with units and n.
    """

    data: str
    paint: Callable[[list[dict[str, Any]]], None]
    alt: str
    caption: str


def draw(name: str) -> Path:
    """Draws a figure of `FIGURES` and returns its file.

    Raises:
      KeyError: there is no such figure, or its data lack a row or column.
    """
    figure = FIGURES[name]
    content = json.loads((DOCS / "results" / f"{figure.data}.json").read_text(encoding="utf-8"))
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.svg"
    with plt.rc_context(STYLE):
        figure.paint(content["tables"])
        plt.savefig(path, metadata={"Date": None}, bbox_inches="tight")
        plt.close("all")
    return path


def _series(table: dict[str, Any], row: str, columns: list[str]) -> list[dict[str, Any]]:
    """Returns the cells of a row in some columns."""
    return [table["rows"][row][table["columns"].index(each) - 1] for each in columns]


def _points(cells: list[dict[str, Any]], scale: float = 100) -> tuple[list[float], Any]:
    """Returns means, and the lengths of error bars below and above them."""
    means = [cell["mean"] * scale for cell in cells]
    below = [max(0.0, m - cell["ci95"][0] * scale) for m, cell in zip(means, cells)]
    above = [max(0.0, cell["ci95"][1] * scale - m) for m, cell in zip(means, cells)]
    return means, [below, above]


def _bars(axes: Any, groups: list[str], series: dict[str, list[dict[str, Any]]]) -> None:
    """Draws bars side by side for each group, one colour and hatch for each series."""
    width = 0.8 / len(series)
    for i, (name, cells) in enumerate(series.items()):
        means, errors = _points(cells)
        places = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
        axes.bar(
            places, means, width * 0.92, yerr=errors, label=name, color=COLOURS[i],
            hatch=HATCHES[i], edgecolor="white", linewidth=0, capsize=2, error_kw={"lw": 1},
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 100)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4)


def _lines(axes: Any, columns: list[str], series: dict[str, list[dict[str, Any]]]) -> None:
    for i, (name, cells) in enumerate(series.items()):
        means, errors = _points(cells)
        places = [x + 0.05 * (i - len(series) / 2) for x in range(len(columns))]
        axes.errorbar(
            places, means, yerr=errors, label=name, color=COLOURS[i], marker=MARKERS[i], capsize=2
        )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylim(0, 103)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)


def _search(tables: list[dict[str, Any]]) -> None:
    table = next(each for each in tables if "method" in each["columns"])
    methods = ("majority", "best_of_n_prm", "weighted_majority", "beam", "mcts", "lookahead",
               "adaptive", "oracle")  # fmt: skip
    _, axes = plt.subplots(figsize=(7.5, 4.6))
    for i, method in enumerate(methods):
        cells = [cell for cell in table["rows"][method] if isinstance(cell, dict)]
        means, errors = _points([cell["accuracy"] for cell in cells])
        axes.errorbar(
            [cell["tokens"] for cell in cells], means, yerr=errors, label=method, marker=MARKERS[i],
            color=COLOURS[i], capsize=2, linestyle="--" if method == "oracle" else "-",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("generated tokens per problem")
    axes.set_ylabel("accuracy (%)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)


def _r1_zero(tables: list[dict[str, Any]]) -> None:
    rows = {"math/pass@1 (%)": "sums", "code/pass@1 (%)": "code", "logic/pass@1 (%)": "contests",
            "format (%)": "format", "language_consistency (%)": "one language"}  # fmt: skip
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), width_ratios=(4, 1))
    stages = ["base", "r1_zero"]
    bars = {each: [_series(tables[0], row, [each])[0] for row in rows] for each in stages}
    _bars(left, list(rows.values()), bars)
    left.set_ylabel("share of responses (%)")
    means, errors = _points(_series(tables[0], "response_tokens", stages), 1)
    right.bar([0, 1], means, 0.6, yerr=errors, color=COLOURS[:2], capsize=2)
    right.set_xticks([0, 1], stages)
    right.set_ylabel("tokens of a response")
    right.grid(axis="x", visible=False)
    plt.tight_layout()


def _r1(tables: list[dict[str, Any]]) -> None:
    stages = ["base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1"]
    rows = {"math/pass@1 (%)": "sums solved", "code/pass@1 (%)": "code solved",
            "chat/win_rate (%)": "small talk won", "language_consistency (%)": "one language",
            "format (%)": "format kept"}  # fmt: skip
    _, axes = plt.subplots(figsize=(7.5, 4.2))
    _lines(axes, stages, {name: _series(tables[0], row, stages) for row, name in rows.items()})
    axes.set_ylabel("share (%)")
    axes.set_xlabel("stage")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)


def _distill(tables: list[dict[str, Any]]) -> None:
    rows = {"math/pass@1 (%)": "sums", "code/pass@1 (%)": "code", "logic/pass@1 (%)": "contests"}
    arms = ["teacher", "base", "rl_only", "sequence", "logit", "on_policy", "distill_then_rl"]
    _, axes = plt.subplots(figsize=(7.5, 4))
    bars = {each: [_series(tables[0], row, [each])[0] for row in rows] for each in arms}
    _bars(axes, list(rows.values()), bars)
    axes.set_ylabel("pass@1 (%)")


def _router(tables: list[dict[str, Any]]) -> None:
    table = tables[0]
    kinds = ["rules", "knn", "linear", "hidden", "random", "oracle"]
    names = list(table["rows"])
    _, axes = plt.subplots(figsize=(7.5, 4.4))
    for i, kind in enumerate(kinds):
        pairs = [(n, _series(table, name, [kind])[0]) for n, name in enumerate(names)]
        pairs = [(n, cell) for n, cell in pairs if isinstance(cell, dict)]
        means, errors = _points([cell for _, cell in pairs], 1)
        axes.errorbar(
            means, [n + 0.12 * (2.5 - i) for n, _ in pairs], xerr=errors, fmt=MARKERS[i],
            color=COLOURS[i], label=kind, capsize=2,
        )  # fmt: skip
    axes.axvline(0.5, color="#666666", lw=1, ls=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("APGR (0.5: no better than chance)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=6)


def _chain(tables: list[dict[str, Any]]) -> None:
    table = tables[1]
    names = list(table["rows"])
    routes = table["columns"][1:]
    _, axes = plt.subplots(figsize=(7, 3.8))
    for i, name in enumerate(names):
        cells = _series(table, name, routes)
        axes.plot(
            [tokens for _, tokens in cells], [accuracy for accuracy, _ in cells], label=name,
            marker=MARKERS[i], color=COLOURS[i],
        )  # fmt: skip
    for (accuracy, tokens), route in zip(_series(table, names[0], routes), routes):
        axes.annotate(route, (tokens, accuracy), xytext=(4, -12), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("generated tokens per question")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, loc="lower right")


FIGURES = {
    "search": Figure(
        "search", _search,
        "Accuracy against generated tokens for eight search methods. All rise from one response to"
        " sixteen; methods with a verifier rise most, and the majority hardly.",
        "Accuracy of search methods on 500 held-out sums against what they generate.",
    ),
    "r1_zero": Figure(
        "tiny", _r1_zero,
        "Bars of the base model and of R1-Zero: R1-Zero solves more sums and keeps the format,"
        " mixes languages more often, and writes longer responses.",
        "The base model and R1-Zero.",
    ),
    "r1": Figure(
        "tiny", _r1,
        "Five measures over the six stages of the recipe. Sums jump with R1-Zero; language"
        " consistency falls there and recovers; small talk is won again by R1.",
        "What each stage of the recipe changes.",
    ),
    "distill": Figure(
        "distill", _distill,
        "Bars of a teacher and six students for sums, code and contests. Students that learned from"
        " the teacher's responses come near the teacher; RL alone does not.",
        "A teacher, and the same small student after each way of training.",
    ),
    "router": Figure(
        "router", _router,
        "Points of six kinds of router for six sets of outcomes: linear and knn lie above chance in"
        " the tiny world, and near chance on outcomes of real models.",
        "How much of the gap between cheapest and best fixed route each kind recovers (APGR).",
    ),
    "effort": Figure(
        "router", _chain,
        "Accuracy against tokens for four fixed routes and three seeds: accuracy rises up to the"
        " long chain; the vote costs six times more tokens and adds nothing.",
        "What a longer chain buys: the fixed routes in the tiny world.",
    ),
}  # fmt: skip
