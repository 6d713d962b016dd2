"""Keeps the finished samples of a rollout that was stopped, for the run that goes on from there."""

import contextlib
import os

from models import processes
from models.decoding.samples import Samples
from models.files import atomic_file
from models.host.storage import as_path, remove_tree


class KeptRollouts:
    """Finished samples on disk, by the step of their weights and the number of their draw.

    A run that resumes at that step has the same weights, so it would draw the same samples again.
    The main process writes; all processes read the same files.
    """

    def __init__(self, directory: str | os.PathLike):
        """Takes the folder for the samples, which need not exist yet."""
        self._directory = as_path(directory)

    def store(self, step: int, draws: dict[int, Samples]) -> None:
        """Writes the samples of each draw that a step has begun, in place of all earlier ones."""
        if not processes.is_main():
            return
        remove_tree(self._directory)
        for draw, samples in draws.items():
            with atomic_file(self._path(step, draw), "wb") as file:
                file.write(samples.to_bytes())

    def found(self, step: int, draw: int) -> Samples | None:
        """Returns the samples of a draw, or None; every process must call this.

        What cannot be read is drawn again.
        """
        samples = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            samples = Samples.from_bytes(self._path(step, draw).read_bytes())
        return samples if all(processes.gathered(samples is not None)) else None

    def clear(self) -> None:
        """Removes all samples."""
        if processes.is_main():
            remove_tree(self._directory)

    def _path(self, step: int, draw: int) -> os.PathLike:
        return self._directory / f"step_{step}_draw_{draw}.npz"
