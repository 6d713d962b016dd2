"""Shows how a training goes on while it runs: for notebooks."""

import contextlib
import contextvars
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from train.metrics import read_metrics

if TYPE_CHECKING:
    from IPython.display import Image


@contextlib.contextmanager
def watch(
    directory: Path, show: Callable[[list[dict[str, Any]]], None], seconds: float = 2.0
) -> Iterator[None]:
    """Calls a function with the metric records of a run, while the block trains and at its end.

    The training stays in the caller's thread, because it handles signals there; the function is
    called in another one. An error of the function ends the calls, not the training.

    Args:
      directory: the folder of the training, with its `metrics.jsonl`.
      show: gets all records so far, and is called only if there are new ones.
      seconds: time between two looks at the folder.

    Raises:
      Exception: what the function raised, once the block has ended without an error of its own.
    """
    over, errors, shown = threading.Event(), [], 0

    def look() -> None:
        nonlocal shown
        if len(records := read_metrics(directory)) > shown:
            show(records)
            shown = len(records)

    def repeat() -> None:
        try:
            while not over.wait(seconds):
                look()
        except Exception as error:
            errors.append(error)

    # A notebook's kernel finds the cell of an output by the context of the thread that prints it.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(repeat,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]
    look()


@contextlib.contextmanager
def plot(directory: Path, labels: Mapping[str, str], seconds: float = 2.0) -> Iterator[None]:
    """Shows a plot of a training's metrics under the cell, which moves while the block trains.

    Args:
      directory: the folder of the training, with its `metrics.jsonl`; it need not exist yet.
      labels: metric -> the label of its axis. Each metric has axes of its own.
      seconds: time between two looks at the folder.
    """
    from IPython.display import display

    shown = display("no step yet", display_id=True)

    def show(records: list[dict[str, Any]]) -> None:
        figure = Figure(figsize=(4 * len(labels), 2.8), layout="constrained")
        for axis, (name, label) in zip(figure.subplots(1, len(labels), squeeze=False)[0],
                                       labels.items()):  # fmt: skip
            points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
            if points:
                axis.plot(*zip(*points), marker=".", linewidth=1)
            axis.set(xlabel="step", ylabel=label)
            axis.grid(alpha=0.3)
        shown.update(picture(figure))

    with watch(directory, show, seconds):
        yield


def picture(figure: Figure) -> "Image":
    """Returns a figure as an image that notebooks show, whatever matplotlib's backend is."""
    from IPython.display import Image

    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=80)
    return Image(written.getvalue())
