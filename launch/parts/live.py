"""Shows a training's records again and again while it runs, for notebooks."""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from train.metrics import read_metrics


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
