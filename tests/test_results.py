"""Figures in README.md and docs/results.md are those of the JSON files; what they show exists."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from tests.figures import ABOUT, NO_FIGURES, NUMBER, faults, read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = ("README.md", "docs/results.md")
# Pages whose commands and links are looked at.
SHOWN = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "methods").glob("*.md")),
]  # fmt: skip
# Shown by docs/router.md, which tests/docs/test_site.py compares.
ROUTER = "router.json"
# Mutations that are tried of each page and file.
TRIED = 40


@pytest.mark.parametrize("page", PAGES)
def test_figures_are_those_of_the_files(page):
    assert faults(ROOT / page) == []


def test_every_file_says_how_it_was_measured():
    named = set(re.findall(r"figures: results/(\S+)", (ROOT / "docs/results.md").read_text()))
    files = {path.name for path in RESULTS.glob("*.json")}
    # Figures of README.md are places of the other files', and no figures of their own.
    assert files == named | {"readme.json", ROUTER} and len(named) > 5
    for name in named | {ROUTER}:
        content = read(RESULTS / name)
        assert all(content.get(key) for key in ABOUT), name
        assert re.fullmatch(r"`[0-9a-f]{7}`", content["version"])
        assert "AMD EPYC" in content["processor"]


def _copy(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def _figures(text):
    """Where the figures of a page are, those in code and links left out."""
    blank = NO_FIGURES.sub(lambda m: " " * len(m[0]), text)
    fences = re.sub(r"^```.*?^```$", lambda m: re.sub(r"\S", " ", m[0]), blank, flags=re.M | re.S)
    lines = re.sub(
        r"^(#.*|\| (?:method|what|steps).*)$", lambda m: " " * len(m[0]), fences, flags=re.M
    )
    return [m.span() for m in NUMBER.finditer(lines)]


@pytest.mark.parametrize("page", PAGES)
def test_a_changed_figure_in_a_page_is_noticed(page, tmp_path):
    path = _copy(tmp_path) / page
    text = path.read_text()
    spans = _figures(text)
    assert len(spans) > 30
    for start, end in random.Random(0).sample(spans, min(TRIED, len(spans))):
        changed = text[start : end - 1] + str((int(text[end - 1]) + 1) % 10)
        path.write_text(text[:start] + changed + text[end:])
        assert faults(path), f"{text[start - 30 : end + 10]!r} may read {changed}"
    path.write_text(text)
    assert not faults(path)


def _numbers(value, place=()):
    """Places of all figures in a parsed JSON file."""
    if isinstance(value, dict | list):
        if isinstance(value, dict) and "of" in value:
            return
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(each, (*place, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place


@pytest.mark.parametrize("name", sorted(p.name for p in RESULTS.glob("*.json") if p.name != ROUTER))
def test_a_changed_figure_in_a_file_is_noticed(name, tmp_path):
    root = _copy(tmp_path)
    path = root / "docs" / "results" / name
    content = read(path)
    places = list(_numbers({key: content.get(key, []) for key in ("tables", "text")}))
    page = root / ("README.md" if name == "readme.json" else "docs/results.md")
    assert places
    for place in random.Random(0).sample(places, min(TRIED, len(places))):
        changed = json.loads(json.dumps(content))
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        share = "mean" in place or "ci95" in place
        holder[place[-1]] += 0.01 if share and abs(holder[place[-1]]) <= 1 else 1
        path.write_text(json.dumps(changed))
        assert faults(page), f"{name}: {place} may be {holder[place[-1]]}"


def test_what_is_left_out_or_added_is_noticed(tmp_path):
    page = _copy(tmp_path) / "docs" / "results.md"
    text = page.read_text()
    for old, new, fault in (
        ("| mcts |", "| mcts2 |", "rows"),
        ("| method | budget 1 |", "| method | budget 2 |", "columns"),
        ("- A chain of thought is worth 41 points [36, 46] over a direct answer.\n", "", "no line"),
        ("## Speed", "It is 3 times as fast.\n\n## Speed", "3.0"),
        ("## Speed\n", "## Speed\n\nIt is 3 times as fast.\n", "no JSON file is named"),
        ("- Seeds: none\n", "- Seeds: 5\n", "says none"),
        ("- Processor: two cores of an AMD EPYC, with other work beside\n", "", "Processor"),
    ):
        assert text.count(old) >= 1
        page.write_text(text.replace(old, new, 1))
        assert fault in "\n".join(faults(page)), old


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_commands_and_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m ((?:launch|benchmarks|tests)\.[\w.]+)", text)
    for module in filter(str.islower, modules):  # Capitals stand for any name.
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for config in re.findall(r"--config=(configs/\w+\.py)", text):
        assert (ROOT / config).is_file(), config
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"
    for link in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert "://" in link or (page.parent / link).exists(), link
