"""Writes the files of a run for its readers: metrics.jsonl, samples.jsonl, TensorBoard events."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import tensorboardX

from models.files import read_jsonl, salvage_jsonl, write_jsonl

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"


class MetricWriter:
    """Appends metrics and sample outputs of a run to files, with one JSON object in each line.

    Only process 0 of a job writes. Each line has the number of updates taken as `step`, in
    ascending order. A run that resumes first removes the lines beyond its checkpoint.
    """

    def __init__(self, directory: str | os.PathLike):
        self._directory = Path(directory)
        self._writes = jax.process_index() == 0
        self._files: dict[str, Any] = {}
        self._board = None

    def resume(self, step: int) -> None:
        """Opens the files, without damaged lines and lines after `step`; call it first."""
        if not self._writes:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in (METRICS_FILE, SAMPLES_FILE):
            _truncate(self._directory / name, step)
            self._files[name] = open(self._directory / name, "a", encoding="utf-8")
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
        """Makes TensorBoard events visible; lines of the JSONL files always are."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        self._files[name].write(json.dumps(record, ensure_ascii=False) + "\n")
        self._files[name].flush()


def read_metrics(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the lines of a run's metrics.jsonl; returns an empty list if there is no such file.

    Raises:
      ValueError: a line is damaged; the message names file and line.
    """
    path = Path(directory) / METRICS_FILE
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
