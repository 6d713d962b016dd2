"""The site builds without warnings, its links lead somewhere, its figures are the measured ones."""

import html.parser
import json
import re
import sys
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
import ergo_figures  # noqa: E402
import ergo_results  # noqa: E402
import ergo_site  # noqa: E402

METHODS = sorted(path.stem for path in (ROOT / "docs" / "methods").glob("*.md"))
WRITTEN = [*sorted((ROOT / "docs" / "methods").glob("*.md")), ROOT / "docs" / "which_method.md",
           ROOT / "docs" / "paper_map.md", ROOT / "docs" / "index.md"]  # fmt: skip


class Page(html.parser.HTMLParser):
    """Collects links, places and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.places, self.loaded, self.text = [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.places.add(attrs["id"])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("img", "script") and attrs.get("src"):
            self.loaded.append(attrs["src"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(attrs["href"])

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_links_lead_to_pages_and_places(pages, site):
    assert len(pages) > 30
    broken, seen = [], 0
    for path, page in pages.items():
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            where, _, place = urllib.parse.unquote(link).partition("#")
            target = (path.parent / where).resolve() if where else path
            seen += 1
            if not target.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
            elif place and target in pages and place not in pages[target].places:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken and seen > 1000


def test_pages_load_nothing_from_elsewhere(pages, site):
    for path, page in pages.items():
        assert page.loaded
        for each in page.loaded:
            assert "//" not in each, f"{path.relative_to(site)} loads {each}"


def test_no_role_is_left_as_text(pages, site):
    """As in a row of a table that a sign within the role divides into too many cells."""
    for path, page in pages.items():
        left = re.findall(r"\{(?:res|src|doc|download)\}", "".join(page.text))
        assert not left, path.relative_to(site)


def test_each_method_has_equation_figure_data_file_and_command(pages, site):
    assert len(METHODS) == 6
    for name in METHODS:
        path = site / "methods" / f"{name}.html"
        text = path.read_text()
        assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in text, name
        assert re.search(r'<img alt="[^"]{40,}" src="../_images/\w+\.svg"', text), name
        assert re.search(r'href="../_downloads/\w+/\w+\.json"', text), name
        shown = "".join(pages[path].text)
        assert "AMD EPYC" in shown and "seeds: 0" in shown and "version" in shown, name
        assert "python -m launch." in shown, name
        assert re.search(r"\b(reasoning|rl|launch|train)/[\w/]+\.py", shown), name


def test_shown_figures_are_those_of_the_files(pages, site):
    """By an own reading of one figure of each kind."""
    table = json.loads((ROOT / "docs/results/tiny.json").read_text())["tables"][0]
    figure = table["rows"]["math/pass@1 (%)"][table["columns"].index("r1_zero") - 1]
    low, high = (round(100 * bound) for bound in figure["ci95"])
    words = f"{100 * figure['mean']:.1f}\u00a0% [{low},\u00a0{high}]"
    for name in ("index", "which_method", "paper_map", "methods/r1_zero"):
        assert words in "".join(pages[site / f"{name}.html"].text), name
    search = json.loads((ROOT / "docs/results/search.json").read_text())["tables"][1]
    tokens = search["rows"]["mcts"][search["columns"].index("64") - 1]["tokens"]
    shown = "".join(pages[site / "which_method.html"].text)
    assert f"with {tokens:,} tokens a problem" in shown


def test_a_figure_that_is_not_there_is_told():
    for name, rows, columns in (
        ("tiny", ["math/pass@2"], ["base"]), ("tiny", ["format (%)"], ["r2"]), ("none", [], []),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}.json"):
            ergo_results.table_of(name, rows, columns)


def test_pages_write_no_measured_figure_by_hand():
    """A number with a percent sign or an interval stands in a role, or is no result."""
    by_hand = re.compile(r"\d+(?:\.\d+)? %(?! interval)|\[\d+(?:\.\d+)?, \d+(?:\.\d+)?\]")
    for path in WRITTEN:
        text = re.sub(
            r"\{res\}`[^`]*`|```.*?```|`[^`]*`|\$[^$]*\$", "", path.read_text(), flags=re.S
        )
        assert not by_hand.findall(text), path.name


def test_every_figure_is_drawn_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(ergo_figures, "FOLDER", tmp_path)
    used = set(re.findall(r"\{run-figure\} (\w+)", "".join(p.read_text() for p in WRITTEN)))
    assert used == set(ergo_figures.FIGURES)
    name = "r1_zero"
    before = ergo_figures.draw(name).read_bytes()
    assert ergo_figures.draw(name).read_bytes() == before
    read = json.loads

    def changed(text):
        content = read(text)
        content["tables"][0]["rows"]["math/pass@1 (%)"][0]["mean"] += 0.1
        return content

    monkeypatch.setattr(ergo_figures.json, "loads", changed)
    assert ergo_figures.draw(name).read_bytes() != before


def test_the_routers_page_shows_its_file():
    """docs/router.md keeps its tables, which GitHub shows too."""
    text = (ROOT / "docs" / "router.md").read_text()
    for table in json.loads((ROOT / "docs/results/router.json").read_text())["tables"]:
        for row, cells in table["rows"].items():
            shown = [row.removeprefix("seed ")]
            for cell in cells:
                if isinstance(cell, dict):
                    low, high = cell["ci95"]
                    shown.append(f"{cell['mean']:.2f} [{low:.2f}, {high:.2f}]")
                elif isinstance(cell, list):
                    shown.append(f"{cell[0]} for {cell[1]}")
                else:
                    shown.append("" if cell is None else str(cell))
            line = "| " + " | ".join(shown) + " |"
            assert line.replace("|  |", "|  |") in text, line


def test_the_paper_map_has_every_section_figure_and_table():
    text = (ROOT / "docs" / "paper_map.md").read_text()
    sections = ("1", "2.1", "2.2.1", "2.2.2", "2.2.3", "2.2.4", "2.3.1", "2.3.2", "2.3.3", "2.3.4",
                "2.4", "3.1", "3.2", "4.1", "4.2", "5")  # fmt: skip
    for each in sections:
        assert re.search(rf"^\| {re.escape(each)} ", text, re.M), each
    for each in [f"Figure {n}" for n in (1, 2, 3)] + [f"Table {n}" for n in range(1, 7)]:
        assert each in text, each
    rows = re.findall(r"^\| [^-].*\|$", text, re.M)
    for row in rows:
        cells = re.split(r" \| ", re.sub(r"`[^`]*`", "x", row).strip("| "))
        assert cells[-1].strip(), row


def test_links_to_files_exist():
    named = 0
    for path in sorted((ROOT / "docs").glob("**/*.md")):
        for name in re.findall(r"\{src\}`([^`]+)`", path.read_text()):
            named += 1
            assert (ROOT / name).exists(), f"{path.name}: {name}"
    assert named > 80


def test_the_api_has_every_module():
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ergo_site.PACKAGES
        for path in (ROOT / folder).rglob("*.py")
    }
    apart = (*ergo_site.APART, "launch.run_")
    assert {name for name in found if not name.startswith(apart)} == set(ergo_site.modules())
