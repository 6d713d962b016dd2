"""Executes notebooks and writes copies with their outputs: `python notebooks/render.py 02 05`.

The copies go to docs/notebooks/. Without numbers all notebooks are executed. They share one folder,
`ERGO_NOTEBOOK_DIR` or runs/notebooks, so what one has trained there the next does not train again.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
RENDERED = HERE.parent / "docs" / "notebooks"


def execute(path: Path, timeout: float | None = None) -> NotebookNode:
    """Executes a notebook in a new kernel that finds this project; returns it with its outputs.

    Raises:
      CellExecutionError: a cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYTHONPATH"] = str(HERE.parent)
    NotebookClient(notebook, timeout=timeout, kernel_name="python3").execute()
    for cell in notebook.cells:
        # Times of execution would make every copy differ from the last.
        cell.metadata = {}
    return notebook


def without_places(notebook: NotebookNode) -> NotebookNode:
    """Returns the notebook without what its outputs say of this machine.

    That is the path of this checkout, and what pip and other programs wrote to stderr.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    written = nbformat.writes(notebook).replace(f"{HERE.parent}{os.sep}", "")
    return nbformat.reads(written, as_version=4)


if __name__ == "__main__":
    RENDERED.mkdir(exist_ok=True)
    for each in sorted(HERE.glob("[0-9][0-9]_*.ipynb")):
        if len(sys.argv) > 1 and each.name[:2] not in sys.argv[1:]:
            continue
        start = time.monotonic()
        nbformat.write(without_places(execute(each)), RENDERED / each.name)
        print(f"{each.name}: {time.monotonic() - start:.0f} s", flush=True)
