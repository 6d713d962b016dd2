"""Writes each notebook's .ipynb from its text: `python notebooks/build.py`.

The badges and the install cell are the same in every notebook, so they stand here.
"""

import hashlib
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

# Where the project is published on GitHub; badges and install cells are made from it. The project
# has no address yet. Nobody can register this owner, so until then a click installs nothing.
REPOSITORY = "-owner-/ergo"
HERE = Path(__file__).parent
BADGES = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})
[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]\
(https://kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/main/notebooks/{name})"""
INSTALL = """\
# Installs the project where it is missing; no restart is needed.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("launch") is None:
    url = "https://github.com/{repository}"
    subprocess.run(["git", "clone", "--depth=1", url, "ergo"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "ergo"], check=True)
    sys.path.insert(0, "ergo")"""


def build(text: Path) -> NotebookNode:
    """Returns the notebook of a percent text, without outputs."""
    body = jupytext.read(text, fmt="py:percent").cells
    places = {"repository": REPOSITORY, "name": text.with_suffix(".ipynb").name}
    cells = [
        nbformat.v4.new_markdown_cell(BADGES.format(**places)),
        *body[:1],
        nbformat.v4.new_code_cell(INSTALL.format(**places)),
        *body[1:],
    ]
    for number, cell in enumerate(cells):
        # Ids that depend on the text alone, so that building twice gives the same file.
        cell["id"] = hashlib.sha256(f"{number} {cell.source}".encode()).hexdigest()[:8]
        cell["metadata"] = {}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def texts() -> list[Path]:
    """Returns the texts of all notebooks, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


if __name__ == "__main__":
    for each in texts():
        nbformat.write(build(each), each.with_suffix(".ipynb"))
