"""Every picture that the project writes: units, n, intervals, colours, and its data beside it."""

import ast
import csv
import json
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest

from launch.jobs import search
from launch.jobs.routing import router
from launch.parts import report
from launch.report import charts, figures, results, training
from launch.report.charts import Point, Series
from launch.report.figures import Axis, Panel
from launch.report.sources import read_run, read_training
from reasoning.statistics import share_with_ci
from tests.launch.report import made

ROOT = Path(__file__).parents[3]
# Of Okabe and Ito, "Color Universal Design", in sRGB.
OKABE_ITO = {
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (240, 228, 66), (0, 0, 0),
}  # fmt: skip


def panel(**changes):
    points = [Point(1, 50, 40, 60), Point(10, 70, 65, 80)]
    fields = {
        "x": Axis("time", "s"), "y": Axis("accuracy", "%"), "series": [Series("a", points)],
        "note": "n = 9 problems",
    }  # fmt: skip
    return Panel(**fields | changes)


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"x": Axis("time", "")}, "time.*has no unit"),
        ({"y": Axis("accuracy", " ")}, "accuracy.*has no unit"),
        ({"note": "95 % intervals"}, "does not say n"),
        ({"series": [Series("a", [Point(1, 2)])]}, "without an interval"),
    ],
)
def test_a_figure_that_lacks_something_is_refused(changes, fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        figures.save(tmp_path / "a.png", [panel(**changes)])
    assert not list(tmp_path.iterdir())


def _training(tmp_path):
    folders = {}
    for seed in (0, 1):
        folders[f"seed_{seed}"] = tmp_path / f"seed_{seed}" / "r1_zero"
        made.rl_metrics(folders[f"seed_{seed}"], steps=60)
        settings = {"training": {"r1_zero": {"prompts": 4, "group": 8}}, "evaluation": {}}
        (folders[f"seed_{seed}"] / "settings.json").write_text(json.dumps(settings))
    assert report.plot_training(tmp_path / "r1_zero.png", folders)
    return tmp_path / "r1_zero.png"


def _short_training(tmp_path):
    made.rl_metrics(tmp_path / "rl", steps=2)
    assert report.plot_training(tmp_path / "rl.png", {"rl": tmp_path / "rl"})
    return tmp_path / "rl.png"


def _search(tmp_path):
    names = [f"method_{i}" for i in range(16)]
    records = [made.measured(n, b, 5 + b, 40 * b) for n in names for b in (1, 4)]
    search.plot(tmp_path / "search.png", records)
    return tmp_path / "search.png"


def _router(tmp_path):
    curve = {"cost": list(np.linspace(5, 80, 30)), "accuracy": list(np.linspace(0.2, 0.8, 30))}
    found = {
        "questions": 100,
        "kinds": {"random": {"curve": curve}, "linear": {"curve": curve}},
        "routes": {
            name: {"cost": cost, "accuracy": share_with_ci(hits, 100)}
            for name, cost, hits in (("direct", 5.0, 20), ("long_chain", 80.0, 80))
        },
    }
    router.plot(tmp_path / "router.png", found)
    return tmp_path / "router.png"


@pytest.mark.parametrize("write", [_training, _short_training, _search, _router])
def test_every_picture_is_whole(write, tmp_path, monkeypatch):
    drawn = []
    plain = figures.draw
    monkeypatch.setattr(figures, "draw", lambda panels: drawn.append(plain(panels)) or drawn[-1])
    path = write(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    assert figure.axes
    for axis in figure.axes:
        for label in (axis.get_xlabel(), axis.get_ylabel()):
            assert label.endswith(")") and "()" not in label, label
        assert "n = " in axis.get_title(loc="left")
        colours = {
            tuple(round(255 * c) for c in matplotlib.colors.to_rgb(line.get_color()))
            for line in axis.lines
        }
        assert colours and colours <= OKABE_ITO
        # Lines that share a colour differ in their marks or dashes.
        named = [line for line in axis.lines if not str(line.get_label()).startswith("_")]
        styles = [(x.get_color(), x.get_marker(), x.get_linestyle()) for x in named]
        assert len(set(styles)) == len(styles)
        assert axis.collections, "neither bars nor bands show the intervals"
    lines = path.with_suffix(".csv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert len(comments) == len(figure.axes) and all("n = " in line for line in comments)
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    _the_data_are_those_of_the_picture(figure, rows)


def _the_data_are_those_of_the_picture(figure, rows):
    for axis in figure.axes:
        own = [row for row in rows if axis.get_ylabel().startswith(row["panel"])]
        assert own
        drawn = [
            xy
            for line in axis.lines
            if str(line.get_label())[0] != "_" or line.get_alpha() == 0.3
            for xy in zip(*line.get_data())
        ]
        kept = [(float(row["x"]), float(row["y"])) for row in own]
        np.testing.assert_allclose(sorted(drawn), sorted(kept), rtol=1e-5)
        for row in own:
            if row["low"]:
                assert float(row["low"]) <= float(row["y"]) <= float(row["high"])


def test_only_one_module_draws_pictures():
    """Notebooks draw what moves while they train, and write no file."""
    users = set()
    for folder in ("benchmarks", "configs", "launch", "models", "reasoning", "rl", "train"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                if any(name.partition(".")[0] in ("matplotlib", "altair", "PIL") for name in names):
                    users.add(str(path.relative_to(ROOT)))
    assert users - {"launch/parts/live.py"} == {"launch/report/figures.py"}


def test_committed_pictures_have_their_data_beside_them():
    for path in (ROOT / "docs").rglob("*.png"):
        assert any(path.with_suffix(kind).exists() for kind in (".csv", ".json")), path


def test_the_committed_comparison_shows_the_committed_figures():
    content = json.loads((ROOT / "docs/results/search.json").read_text())
    rows = next(t["rows"] for t in content["tables"] if t["columns"][0] == "method")
    cells = [(name, each) for name, row in rows.items() for each in row]
    wanted = {
        (
            name,
            each["tokens"],
            *(round(100 * x, 1) for x in (each["accuracy"]["mean"], *each["accuracy"]["ci95"])),
        )
        for name, each in cells
        if isinstance(each, dict)
    }
    lines = (ROOT / "docs/results/search.csv").read_text().splitlines()
    drawn = {
        (row["series"], *(float(row[c]) for c in ("x", "y", "low", "high")))
        for row in csv.DictReader(line for line in lines if not line.startswith("#"))
    }
    # Methods of one response have the same cost at every budget, and are drawn once.
    assert drawn == wanted and len(drawn) > 40


def test_a_run_without_rewards_has_no_picture(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert not report.plot_training(tmp_path / "base.png", {"base": tmp_path / "base"})
    assert not (tmp_path / "base.png").exists()


def test_the_charts_of_the_page_have_units_and_data(tmp_path):
    run = read_run(made.r1(tmp_path))
    found = [f for _, group in training.curves(run) for f in group]
    found += [*training.lengths(run), *results.stage_figures(run), *results.scaling(run.search)]
    assert len(found) > 8
    for figure in found:
        assert isinstance(figure, charts.Figure) and figure.data.rows
        # The first column names the row; the next ones are the axes.
        labels = [h for h in figure.data.headers[1:3] if h not in ("95 % from", "95 % to")]
        assert all(label.strip() for label in labels)
        told = figure.note + str(figure.data.headers)
        assert "n = " in told or "n" in figure.data.headers or "held-out" in told, figure.title


def test_n_of_a_training_is_read_from_its_settings(tmp_path):
    made.rl_metrics(tmp_path / "rl", steps=30)
    (tmp_path / "rl" / "settings.json").write_text(json.dumps({"prompts": 4, "group": 8}))
    (first, *_) = training.rl_panels([("rl", read_training(tmp_path / "rl"), 0)])
    assert first.note.startswith("n = 32 responses a step")
