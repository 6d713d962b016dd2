"""The layout that docs/design.md describes, by reading every import."""

import ast
import functools
import graphlib
import importlib
import re
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
# Folder -> the folders of ours that it may import.
ALLOWED = {
    "models": set(),
    "train": {"models"},
    "reasoning": {"models"},
    "rl": {"train", "reasoning", "models"},
    "configs": set(),
    "launch": {"models", "train", "reasoning", "rl", "configs"},
}
# Modules of one folder: about a dozen.
MOST_MODULES = 14
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
LIBRARIES = ("models", "train", "reasoning", "rl")
# What worker processes import; JAX would cost each of them seconds to start.
WORKER_MODULES = (
    "reasoning.workers.pool", "reasoning.workers.supervisor", "reasoning.mathematics.verifier",
    "reasoning.code_runner.local", "reasoning.tasks", "rl.rewards.combine", "rl.rewards.accuracy",
    "rl.rewards.user",
)  # fmt: skip


def files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache
def imports(path, everywhere=True):
    """Dotted names that a file imports; only at module level if not `everywhere`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes, found = [tree], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        if everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes += ast.iter_child_nodes(node)
    return frozenset(found)


def tops(path):
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("folder", ALLOWED)
def test_folders_import_only_what_the_table_allows(folder):
    ours = set(ALLOWED) | {"tests", "benchmarks"}
    assert files(folder)
    for path in files(folder):
        forbidden = (tops(path) & ours) - ALLOWED[folder] - {folder}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {', '.join(forbidden)}"


def test_every_folder_of_code_is_in_the_table():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == {*ALLOWED, "tests"}


def test_libraries_read_no_flags_and_no_configs():
    for path in files(*LIBRARIES):
        known = tops(path) & {"absl", "configs", "ml_collections"}
        assert not known, f"{path.relative_to(ROOT)} imports {known}"


def test_no_tensorflow():
    for path in files(*ALLOWED, "tests", "benchmarks"):
        assert "tensorflow" not in tops(path), path.relative_to(ROOT)


def test_our_packages_are_the_ones_imported():
    for name in ALLOWED:
        assert Path(importlib.import_module(name).__file__).is_relative_to(ROOT)


def test_every_package_is_installed():
    """A folder without `__init__.py` would work from a checkout and be missing from a wheel."""
    include = [pattern for name in ALLOWED for pattern in (name, f"{name}.*")]
    packages = set(setuptools.find_packages(ROOT, include=include))
    for path in files(*ALLOWED):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert package in packages, f"{path.relative_to(ROOT)}: its folder has no __init__.py"
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{name}"' in setup for name in ALLOWED)


def test_worker_processes_do_not_import_jax():
    waiting, seen = list(WORKER_MODULES), set()
    while waiting:
        name = waiting.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        path = path if path.exists() else ROOT / name.replace(".", "/") / "__init__.py"
        if name in seen or not path.exists():  # a function, or somebody else's
            continue
        seen.add(name)
        direct = imports(path, everywhere=False)
        heavy = {each for each in direct if each.partition(".")[0] in ("jax", "flax", "optax")}
        assert not heavy, f"{path.relative_to(ROOT)}, which workers import, imports {heavy}"
        parents = {name.rpartition(".")[0]} - {""}
        waiting += [each for each in direct | parents if each.partition(".")[0] in ALLOWED]
    assert set(WORKER_MODULES) <= seen


def packages():
    return sorted({path.parent for path in files(*ALLOWED)})


def rooms(package):
    """The modules and subfolders of a package -> those of its others that each imports."""
    members = {path.stem for path in package.glob("*.py")} - {"__init__"}
    members |= {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    base = ".".join(package.relative_to(ROOT).parts)
    graph = {}
    for name in members:
        inside = sorted((package / name).rglob("*.py")) or [package / f"{name}.py"]
        names = {each for path in inside for each in imports(path)}
        below = {
            each.removeprefix(f"{base}.").partition(".")[0]
            for each in names
            if each.startswith(f"{base}.")
        }
        graph[name] = (below & members) - {name}
    return graph


@pytest.mark.parametrize("package", packages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_inside_a_folder_imports_run_one_way(package):
    try:
        graphlib.TopologicalSorter(rooms(package)).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        pytest.fail(f"{package.relative_to(ROOT)}: a circle of imports: {circle}")


@pytest.mark.parametrize("package", packages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_folder_is_crowded(package):
    modules = sorted({path.stem for path in package.glob("*.py")} - {"__init__"})
    if package.name == "launch":
        modules = [name for name in modules if not name.startswith("run_")]
        assert not modules, f"launch/ holds entry points only, not {modules}: use a folder of it"
    assert len(modules) <= MOST_MODULES, f"{package.relative_to(ROOT)} holds {len(modules)}"


def test_the_map_and_the_code_agree():
    table = DESIGN.partition("## The folders")[2].partition("## Where is")[0]
    drawn = re.findall(r"^\| `([\w/]+)/` \|", table, re.M)
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {str(package.relative_to(ROOT)) for package in packages()}


def test_what_the_map_says_is_found_is_there():
    named = re.findall(r"`([\w/]+\.py)`", DESIGN)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_tests_mirror_the_folders():
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        assert folder.parts[:1] in ((), ("parity",)) or (ROOT / folder).is_dir(), path
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"
