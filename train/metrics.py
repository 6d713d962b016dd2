"""Writes the files of a run for its readers: metrics.jsonl, samples.jsonl, TensorBoard events."""

import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import tensorboardX
from tensorboardX.record_writer import register_writer_factory

from models.files import read_jsonl, salvage_jsonl, write_jsonl
from models.host.storage import GrowingFile, as_path, is_remote, make_folder

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"


class MetricWriter:
    """Appends metrics and sample outputs of a run to files, with one JSON object in each line.

    Only process 0 of a job writes. Each line has the number of updates taken as `step`, in
    ascending order. A run that resumes first removes the lines beyond its checkpoint.
    """

    def __init__(self, directory: str | os.PathLike):
        self._directory = as_path(directory)
        self._writes = jax.process_index() == 0
        self._files: dict[str, GrowingFile] = {}
        self._board = None

    def resume(self, step: int, line_written: bool = True) -> None:
        """Opens the files, without damaged lines and lines after `step`; call it first.

        Args:
          step: the step of the checkpoint that the run goes on from.
          line_written: False if the metrics of that step itself are still to come.
        """
        if not self._writes:
            return
        make_folder(self._directory)
        for name in (METRICS_FILE, SAMPLES_FILE):
            last = step if name == SAMPLES_FILE or line_written else step - 1
            _truncate(self._directory / name, last)
            self._files[name] = GrowingFile(self._directory / name)
        if is_remote(self._directory):
            register_writer_factory(str(self._directory).partition(":")[0], _RemoteEvents)
        self._board = tensorboardX.SummaryWriter(
            str(self._directory / "tensorboard"), purge_step=step + 1
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes scalars after `step` updates; values that are not finite become null."""
        if not self._writes:
            return
        plain = {name: float(value) for name, value in metrics.items()}
        finite = {name: value for name, value in plain.items() if math.isfinite(value)}
        self._append(METRICS_FILE, {"step": step} | {name: finite.get(name) for name in plain})
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)

    def write_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Writes model outputs after `step` updates: JSON-able mappings with prompt, reward, ..."""
        if not self._writes:
            return
        for sample in samples:
            self._append(SAMPLES_FILE, {"step": step, **sample})

    def flush(self) -> None:
        """Makes everything visible that was written so far; call it before a checkpoint."""
        for file in self._files.values():
            file.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        self._files[name].append(json.dumps(record, ensure_ascii=False))


class _RemoteEvents:
    """Lets tensorboardX write event files to a remote store, each as a whole object."""

    def __init__(self, path: Path):
        self._path, self._content = path, io.BytesIO()

    @classmethod
    def open(cls, path: str) -> "_RemoteEvents":
        return cls(as_path(path))

    @staticmethod
    def directory_check(path: str) -> None:
        """Does nothing: an object store has no folders to make."""

    def write(self, data: bytes) -> None:
        self._content.write(data)

    def flush(self) -> None:
        self._path.write_bytes(self._content.getvalue())

    def close(self) -> None:
        self.flush()


def read_metrics(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the lines of a run's metrics.jsonl; returns an empty list if there is no such file.

    Raises:
      ValueError: a line is damaged; the message names file and line.
    """
    path = as_path(directory) / METRICS_FILE
    return [record for _, record in read_jsonl(path)] if path.exists() else []


def _truncate(path: Path, step: int) -> None:
    """Keeps whole lines up to `step`, and tells on stderr which lines were damaged."""
    if not path.exists():
        return
    records, damaged = salvage_jsonl(path)
    for number in damaged:
        print(f"{path}:{number}: the line is not whole; it is removed", file=sys.stderr)
    steps = [record.get("step") for record in records]
    kept = [r for r, at in zip(records, steps) if isinstance(at, int) and at <= step]
    write_jsonl(path, kept)
