"""The page that compares runs, and the command that builds pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch import run_report
from launch.parts import lock
from launch.report import comparison
from launch.report.sources import read_run
from tests.launch.report import made
from tests.launch.report.test_page import Seen, shown

ROOT = Path(__file__).parents[3]


def two(tmp_path, kind="rl", texts=("so 3", "so 3")):
    for name, text in zip("ab", texts):
        (tmp_path / name).mkdir()
        made.KINDS[kind](tmp_path / name, text)
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_one_run_gets_its_page_and_several_get_one(tmp_path, capsys):
    a, b = two(tmp_path)
    assert run_report.build([a]) == Path(a).resolve() / "report.html"
    both = run_report.build([a, b], str(tmp_path / "both.html"))
    assert capsys.readouterr().out.endswith(f"page: {both}\n")
    assert not (Path(b) / "report.html").exists()


@pytest.mark.parametrize("kind", made.KINDS)
def test_figures_of_all_runs_stand_side_by_side(kind, tmp_path):
    folders = two(tmp_path, kind)
    text = run_report.build(folders, str(tmp_path / "both.html")).read_text()
    table = re.search(r"<caption>Mean \[95 % interval\]</caption>.*?</table>", text, re.S)
    assert table is not None
    assert re.findall(r'<th scope="col">([^<]*)</th>', table[0]) == ["figure", "a", "b"]
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", table[0], re.S)
    assert len(rows) >= (1 if kind == "router" else 2)
    for row in rows:
        first, second = re.findall(r"<td>([^<]*)</td>", row)
        assert first == second and re.fullmatch(r"-?[\d.]+ \[.*\], n = \d+", first)


def test_a_figure_that_a_run_lacks_is_a_dash(tmp_path):
    made.rl(tmp_path / "a")
    made.rl(tmp_path / "b", done=False)
    figures = {n: dict(comparison.measured(read_run(tmp_path / n))) for n in "ab"}
    rows = {row[0]: row[1:] for row in comparison.side_by_side(figures).rows}
    first, second = rows["rl: math/pass@1 (%)"]
    assert first.startswith("75.0 [") and second == "–"


def test_curves_lie_over_each_other_and_name_their_run(tmp_path):
    runs = {name: read_run(path) for name, path in zip("ab", two(tmp_path, "r1"))}
    ((stage, figures),) = comparison._curves(runs)
    reward = next(figure for figure in figures if figure.title == "Reward")
    # Two seeds of a run share its colour and its place in the legend.
    assert stage == "r1_zero" and [name for name, _ in reward.legend] == ["a", "b"]
    colours = re.findall(r'<polyline class="line (c\d)"', reward.svg)
    assert colours == ["c0", "c0", "c1", "c1"]


def test_only_settings_that_differ_are_listed(tmp_path):
    runs = {n: read_run(p) for n, p in zip("ab", two(tmp_path, texts=("one", "other")))}
    table = comparison.differences(runs)
    assert table is not None and table.rows == [["task", "one", "other"]]
    assert comparison.differences({"a": runs["a"], "c": runs["a"]}) is None


def test_hostile_text_does_nothing_in_a_comparison(tmp_path):
    folders = two(tmp_path, texts=(made.HOSTILE, "so 3"))
    text = run_report.build(folders, str(tmp_path / "both.html")).read_text()
    seen = Seen(text)
    assert made.HOSTILE in "".join(seen.text) and not {"script", "img"} & set(seen.tags)


def test_runs_are_named_by_what_tells_them_apart():
    paths = [Path("/x/a/run"), Path("/x/b/run")]
    assert comparison.distinct_names(paths) == ["a/run", "b/run"]
    assert comparison.distinct_names(paths[:1]) == ["run"]
    with pytest.raises(ValueError, match="is given twice"):
        comparison.distinct_names([paths[0], paths[0]])


def test_the_page_of_a_run_that_goes_on_is_live(tmp_path):
    made.rl(tmp_path, done=False)
    with lock.locked(tmp_path):
        text = run_report.build([str(tmp_path)]).read_text()
    assert 'http-equiv="refresh"' in text and "still going on" in shown(text)
    assert 'http-equiv="refresh"' not in run_report.build([str(tmp_path)]).read_text()


def test_the_command_line_reports_one_line(tmp_path):
    def told(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "launch.run_report", *arguments],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr.splitlines()

    code, _, lines = told(str(tmp_path / "absent"))
    assert code == 1 and len(lines) == 2  # The second says how to see where.
    assert lines[0] == f"error: {tmp_path / 'absent'} does not exist: give the folder (--workdir)" \
                       " of a run"  # fmt: skip
    code, _, lines = told()
    assert code == 1 and lines[0].startswith("error: no run is named: give the folder")
    made.rl(tmp_path)
    code, out, lines = told(str(tmp_path))
    assert (code, out, lines) == (0, f"page: {(tmp_path / 'report.html').resolve()}\n", [])
