"""Shows a training's records again and again while it runs, for notebooks."""

import contextlib
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
    over, errors = threading.Event(), []

    def repeat():
        shown = 0
        try:
            while True:
                last = over.wait(seconds)
                if len(records := read_metrics(directory)) > shown:
                    show(records)
                    shown = len(records)
                if last:
                    return
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]
