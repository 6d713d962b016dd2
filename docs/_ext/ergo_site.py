"""Makes the site of this project: links to source files, API and command pages, offline equations.

    {src}`rl/losses.py`     a file of the checkout, as a link to its API page where it has one

Equations become MathML when the site is built, so a page needs no script and no network for them.
Pictures from other servers, such as badges of notebooks, become links.
"""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
API = DOCS / "api"
PACKAGES = ("models", "train", "reasoning", "rl", "launch")
# Run in a process of its own that has the standard library alone, and nothing to import it for.
APART = ("reasoning.code_runner.sandbox", "reasoning.workers.supervisor",
         "models.tokens.chat_template_worker", "models.tokens.tokenizer_trial")  # fmt: skip
_RULE = r"^ *=+(?: +=+)+$"
_TABLE = re.compile(rf"({_RULE}\n(?:.*\n)+?{_RULE}\n(?:.*\n)+?{_RULE})", re.M)
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(\w?)")


class Source(SphinxRole):
    """The role `src`: a file or folder of the checkout."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Returns the path, linked to the module's documentation where there is one."""
        path = ROOT / self.text
        if not path.exists():
            message = self.inliner.reporter.warning(f"{{src}}`{self.text}`: no such file")
            return [nodes.problematic(self.text, self.text)], [message]
        text = nodes.literal(self.text, self.text)
        module = self.text.removesuffix(".py").removesuffix("/").replace("/", ".")
        module = module.removesuffix(".__init__")
        if module.startswith("launch.run_"):
            target, kind = f"/commands/{module.removeprefix('launch.')}", "doc"
            link = addnodes.pending_xref(
                "", text, refdomain="std", reftype=kind, reftarget=target, refexplicit=True,
                refwarn=True, refdoc=self.env.docname,
            )  # fmt: skip
            return [link], []
        if module in modules():
            link = addnodes.pending_xref(
                "", text, refdomain="py", reftype="mod", reftarget=module, refexplicit=True,
                refwarn=False, refdoc=self.env.docname,
            )  # fmt: skip
            return [link], []
        return [text], []


def modules() -> list[str]:
    """Returns the names of all modules that the API pages describe."""
    names = []
    for package in PACKAGES:
        names.append(package)
        found = pkgutil.walk_packages([str(ROOT / package)], f"{package}.", onerror=lambda _: None)
        names += [each.name for each in found]
    return [
        name
        for name in names
        if not name.startswith(("launch.run_", *(f"{each}." for each in APART)))
        and name not in APART
    ]


def write_api(app: Sphinx) -> None:
    """Writes one page for each package, with the modules that lie directly in it."""
    folders: dict[str, list[str]] = {}
    known = modules()
    for name in known:
        is_package = (ROOT / name.replace(".", "/")).is_dir()
        folders.setdefault(name if is_package else name.rpartition(".")[0], []).append(name)
    if app.config.ergo_api_only:
        folders = {key: folders[key] for key in app.config.ergo_api_only}
    pages = {}
    for folder, names in folders.items():
        lines = [folder, "=" * len(folder), ""]
        for name in sorted(names, key=lambda each: (each != folder, each)):
            if name != folder:
                lines += [name, "-" * len(name), ""]
            lines += [f".. automodule:: {name}", "   :members:" if name != folder else "", ""]
        pages[f"{folder}.rst"] = "\n".join(lines)
    entries = "\n".join(sorted(folders))
    pages["index.md"] = (
        "# API\n\nEvery module, from its docstrings, by folder. {doc}`/design` says what lives"
        f" where.\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    )
    _write(API, pages)


def write_commands(app: Sphinx) -> None:
    """Writes a page for each entry point, with what its `--help` prints."""
    pages, rows = {}, []
    running = {
        path.stem: subprocess.Popen(
            [sys.executable, "-m", f"launch.{path.stem}", "--help"], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, env={"COLUMNS": "92", "PATH": ""},
        )
        for path in sorted((ROOT / "launch").glob("run_*.py"))
    }  # fmt: skip
    for name, process in running.items():
        text, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"launch.{name} --help ends with {process.returncode}")
        purpose = text.partition("\n\n")[0].replace("\n", " ")
        rows.append(f"| [launch.{name}]({name}.md) | {purpose} |")
        shown = text.partition("\nFields of")[0].rstrip()
        fields = "\n\n{doc}`/settings` lists the fields of configs." if "Fields of" in text else ""
        pages[f"{name}.md"] = (
            f"# launch.{name}\n\nWhat `python -m launch.{name} --help` prints:\n\n"
            f"```text\n{shown}\n```{fields}\n"
        )
    entries = "\n".join(running)
    pages["index.md"] = (
        "# Commands\n\n| command | what it does |\n|---|---|\n" + "\n".join(rows) + "\n\n"
        f"```{{toctree}}\n:hidden:\n\n{entries}\n```\n"
    )
    _write(DOCS / "commands", pages)


def _write(folder: Path, pages: dict[str, str]) -> None:
    """Makes a folder hold these pages alone; a page that is right already is not touched."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def plain_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Turns what docstrings write plainly into what reStructuredText needs.

    Code in single backticks gets double ones, a list gets the blank line before it, and what a
    docstring indents by four columns before its sections, such as a command, becomes a literal
    block.
    """
    del app, what, name, obj, options
    sections = ("Args:", "Attributes:", "Returns:", "Yields:", "Raises:")
    end = next((i for i, line in enumerate(lines) if line in sections), len(lines))
    lines[:end] = _literal_blocks("\n".join(lines[:end]))
    found: list[str] = []
    for line in _without_hanging_indent(lines):
        before = found[-1] if found else ""
        if re.match(r" *- ", line) and before.strip() and not re.match(r" *- ", before):
            found += [""] if _indent(before) <= _indent(line) else []
        found.append(line)
    parts = _TABLE.split("\n".join(found))
    # In a table the columns must keep their widths; the default role shows code there.
    parts[::2] = [_CODE.sub(_double, part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def _without_hanging_indent(lines: list[str]) -> list[str]:
    """Returns the lines, with what follows the first line of "Returns:" right below that one."""
    result, i = [], 0
    while i < len(lines):
        result.append(lines[i])
        i += 1
        if lines[i - 1].strip() not in ("Returns:", "Yields:") or i == len(lines):
            continue
        first = _indent(lines[i])
        end = i + 1
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) >= first):
            end += 1
        rest = [each for each in lines[i + 1 : end] if each.strip()]
        shift = min((_indent(each) - first for each in rest), default=0)
        result.append(lines[i])
        result += [each[shift:] for each in lines[i + 1 : end]]
        i = end
    return result


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _double(code: re.Match[str]) -> str:
    # Before a letter, as in `array`s, reStructuredText needs an invisible space.
    return f"``{code[1]}``" + (f"\\ {code[2]}" if code[2] else "")


def _literal_blocks(text: str) -> list[str]:
    """Returns the lines of a text, with indented blocks and tables of Markdown marked."""
    parts = re.split(r"(?:\A|\n\n)((?:(?: {4}|\|).*(?:\n|\Z)|\n(?= {4}))+)", text)
    marked = []
    for number, part in enumerate(parts):
        table = part.lstrip().startswith(("====", "* ", "- "))
        if number % 2 and not table:
            block = [f"    {each}" if each.startswith("|") else each for each in part.splitlines()]
            marked += ["", "::", "", *block, ""]
        else:
            marked += ["", *part.splitlines(), ""] if number % 2 else part.splitlines()
    return [*marked, ""]


def complete_contents(app: Any, name: str, source: list[str]) -> None:
    """Completes the contents of the first page: adds pages that it does not name.

    A list of a folder that is missing, such as that of notebooks, is left out.
    """
    del app

    def kept(found: re.Match[str]) -> str:
        globs = [each for each in found[0].splitlines() if "*" in each]
        return found[0] if not globs or any(list(DOCS.glob(each)) for each in globs) else ""

    if name == "index":
        text = re.sub(r"^```\{toctree\}\n(?:(?!```).*\n)*?```$", kept, source[0], flags=re.M)
        named = set(re.findall(r"^[\w/]+$", text, re.M))
        more = [path.stem for path in sorted(DOCS.glob("*.md"))]
        more = [each for each in more if each not in named and each != "index"]
        more = [each for each in more if not each.startswith("cluster")]
        if more:
            text += "\n```{toctree}\n:hidden:\n:caption: More\n\n" + "\n".join(more) + "\n```\n"
        source[0] = text


def link_pictures(app: Sphinx, tree: nodes.document) -> None:
    """Replaces pictures from other servers by their words, so that a page loads nothing else."""
    del app
    for image in list(tree.findall(nodes.image)):
        if "://" in image["uri"]:
            image.replace_self(nodes.Text(image.get("alt") or image["uri"]))


def _inline_equation(self: Any, node: Any) -> None:
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def _equation(self: Any, node: Any) -> None:
    text = re.sub(r"\\label\{[^}]*\}", "", node.astext())
    mathml = latex2mathml.converter.convert(text, display="block")
    # An equation that is wider than a phone scrolls, also by the keyboard.
    self.body.append(f'<div class="equation" tabindex="0" role="group">{mathml}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the roles, pages and the writer of equations to Sphinx."""
    app.add_config_value("ergo_api_only", [], "env", list)
    app.add_role("src", Source())
    app.add_html_math_renderer("mathml", (_inline_equation, None), (_equation, None))
    app.connect("builder-inited", write_api)
    app.connect("builder-inited", write_commands)
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
    app.connect("source-read", complete_contents)
    app.connect("doctree-read", link_pictures)
    return {"parallel_read_safe": True}
