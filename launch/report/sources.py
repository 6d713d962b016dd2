"""Reads the folder of a run, finished or still going on, into a `Run` for the report page."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.files import read_json, salvage_jsonl
from models.host.storage import absolute, is_remote, modified, size
from reasoning.statistics import combine_seeds

REPORT_FILE, RECORD_FILE = "report.json", "run.json"
# Files that mark a folder as that of a stage or of a training.
_MARKS = ("settings.json", "result.json", "metrics.jsonl")
# Folders that hold no results of their own, or many files.
_SKIPPED = {
    "checkpoints", "compiled", "hf", "labels", "reference", "responses", "stale", "tensorboard",
    "tokenizer",
}  # fmt: skip
# Graded responses that are read from a file, from its beginning.
GRADED_READ = 400
# Bytes that are read from the beginning and from the end of a file of samples.
SAMPLE_BYTES = 2**18
_REMEDY = "remove it, and run the same command again"


@dataclasses.dataclass(frozen=True)
class Training:
    """The metrics of one training.

    Attributes:
      stage: its stage, such as `rl` or `verifiers/outcome`.
      seed: the seed's folder, such as `seed_0`; "" if the run has none.
      records: the lines of metrics.jsonl.
      settings: what the stage was begun with.
      samples: some of its sampled responses, from the first steps and from the last ones.
    """

    stage: str
    seed: str
    records: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Run:
    """All that the page shows of a run.

    Attributes:
      path: the run's folder.
      report: `report.json`; empty while the run goes on.
      invocations: one record for each command that worked in the folder, oldest first.
      stages: stage -> its result, with the figures of all seeds combined.
      search: measurements of search methods, if the run has any.
      trainings: the trainings, in the order of their stages.
      graded: stage -> its first graded responses.
      found: paths that searches found: method -> records.
      warnings: (stage, what is wrong).
    """

    path: Path
    report: Mapping[str, Any]
    invocations: Sequence[Mapping[str, Any]]
    stages: Mapping[str, Mapping[str, Any]]
    search: Sequence[Mapping[str, Any]]
    trainings: Sequence[Training]
    graded: Mapping[str, Sequence[Mapping[str, Any]]]
    found: Mapping[str, Sequence[Mapping[str, Any]]]
    warnings: Sequence[tuple[str, str]]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def last(self) -> Mapping[str, Any]:
        """The record of the last command; empty if there is none."""
        return self.invocations[-1] if self.invocations else {}


def read_run(directory: str | os.PathLike) -> Run:
    """Reads a run's folder. Lines that are being written at this moment are left out.

    Raises:
      ValueError, OSError: in one line: the folder is missing, holds no run, or has a damaged file.
    """
    path = absolute(directory)
    if not path.is_dir():
        fault = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"{directory} {fault}: give the folder (--workdir) of a run")
    report = _read(path / REPORT_FILE) or {}
    invocations = (_read(path / RECORD_FILE) or {}).get("invocations", [])
    folders = list(_folders(path))
    if not (report or invocations or folders):
        raise ValueError(
            f"{directory} holds no run (no {REPORT_FILE}, no {RECORD_FILE}, no stage): give the"
            " folder (--workdir) of a run"
        )
    named = sorted(
        ((*_stage_and_seed(path, folder), folder) for folder in folders),
        key=lambda each: _place(report, *each),
    )
    results: dict[str, list[Any]] = {}
    graded: dict[str, list[dict[str, Any]]] = {}
    trainings, warnings, found = [], [], {}
    for stage, seed, folder in named:
        if (result := _read(folder / "result.json", (dict, list))) is not None:
            results.setdefault(stage, []).append(result)
        if (folder / "graded.jsonl").exists() and stage not in graded:
            graded[stage] = list(itertools.islice(_lines(folder / "graded.jsonl"), GRADED_READ))
        if (folder / "metrics.jsonl").exists():
            trainings.append(read_training(folder, stage, seed))
        told = stage if len({each for _, each, _ in named}) < 2 else f"{stage}, {seed}"
        for line in _warnings(_read(folder / "warnings.json", (list,)) or []):
            warnings.append((told, line))
        if (stop := _read(folder / "stopped.json")) is not None:
            warnings.append((told, f"stopped at step {stop.get('step')}: {stop.get('reason')}"))
        for file in sorted((folder / "measured_samples").glob("*.jsonl")):
            found.setdefault(file.stem, list(_lines(file)))
    if (path / "graded.jsonl").exists():  # Of an evaluation, which has no stages.
        for record in itertools.islice(_lines(path / "graded.jsonl"), GRADED_READ):
            graded.setdefault(f"{record.get('model')}, {record.get('method')}", []).append(record)
    search = [each for name in list(results) for each in _measurements(results[name])]
    search = search or list(report.get("search", []))
    stages = {
        name: _combined(each) for name, each in results.items() if isinstance(each[0], Mapping)
    }
    return Run(path, report, invocations, stages, search, trainings, graded, found, warnings)


def read_training(directory: Path, stage: str = "", seed: str = "") -> Training:
    """Reads the folder of one training; what is missing there is empty.

    Raises:
      ValueError: a file is damaged.
    """
    settings = _read(directory / "settings.json") or _read(directory.parent / "settings.json")
    metrics = directory / "metrics.jsonl"
    records = salvage_jsonl(metrics)[0] if metrics.exists() else []
    samples = _both_ends(directory / "samples.jsonl")
    return Training(stage or directory.name, seed, records, settings or {}, samples)


def last_change(directory: Path) -> int:
    """Returns when a stage of the run last wrote something, in nanoseconds; 0 if none has."""
    latest = 0
    for folder in _folders(directory):
        for name in (*_MARKS, "graded.jsonl", "samples.jsonl", "measured.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                latest = max(latest, modified(folder / name))
    return latest


def settings_of(training: Training) -> Mapping[str, Any]:
    """Returns the innermost settings that the training's stage was given, or all of them."""
    names = [*reversed(training.stage.split("/")), "rl"]
    given = training.settings.get("training", training.settings)
    found = next((given[n] for n in names if isinstance(given.get(n), Mapping)), given)
    return found if isinstance(found, Mapping) else {}


def leaves(settings: Any, path: str = "") -> dict[str, Any]:
    """Returns the values of nested settings by dotted path."""
    if not isinstance(settings, Mapping) or not settings:
        return {path: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= leaves(value, f"{path}.{key}" if path else str(key))
    return flat


def _folders(top: Path) -> Iterator[Path]:
    entries = sorted(top.iterdir())
    if any(path.name in _MARKS for path in entries):
        yield top
    for path in entries:
        if path.name in _SKIPPED or path.name.startswith("."):
            continue
        if is_remote(path) and path.suffix:  # A file; it would take time to ask the store.
            continue
        if path.is_dir():
            yield from _folders(path)


def _stage_and_seed(top: Path, folder: Path) -> tuple[str, str]:
    parts = folder.relative_to(top).parts or (top.name,)
    seed = parts[0] if re.fullmatch(r"seed_\d+", parts[0]) and len(parts) > 1 else ""
    return "/".join(parts[1:] if seed else parts), seed


def _place(report: Mapping[str, Any], stage: str, seed: str, folder: Path) -> tuple[Any, ...]:
    """Returns the place of a stage in the page: as in the report, or else by its beginning."""
    order = [*report.get("stages", {}), "verifiers", "search", *report.get("distill", {})]
    top, number = stage.partition("/")[0], int(seed.removeprefix("seed_") or 0)
    begun = min(modified(folder / m) for m in _MARKS if (folder / m).exists())
    return (order.index(top) if top in order[: -2 or None] else len(order), begun, stage, number)


def _read(path: Path, kinds: tuple[type, ...] = (dict,)) -> Any:
    """Returns the JSON value of a file; None if there is no such file."""
    try:
        return read_json(path, _REMEDY, kinds)
    except FileNotFoundError:
        return None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the whole records of a JSON Lines file, without reading it to its end."""
    with path.open("rb") as file:
        yield from _parsed(file)


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # It is being written, or was cut short by a kill.
            continue
        if isinstance(record, dict):
            yield record


def _both_ends(path: Path) -> list[dict[str, Any]]:
    """Returns the records at the beginning and at the end of a JSON Lines file."""
    if not path.exists():
        return []
    length = size(path)
    with path.open("rb") as file:
        text = file.read(SAMPLE_BYTES)
        if length > 2 * SAMPLE_BYTES:
            file.seek(length - SAMPLE_BYTES)
            file.readline()
        elif len(text) < length:
            file.seek(0)
            text = b""
        text += b"\n" + file.read()
    return list(_parsed(text.splitlines()))


def _warnings(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each kind of warning: the last of its kind, and the steps of all."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for warning in found:
        kinds.setdefault(str(warning.get("kind")), []).append(warning)
    lines = []
    for each in kinds.values():
        steps = ", ".join(str(warning.get("step")) for warning in each[-6:])
        dots = "…, " if len(each) > 6 else ""
        word = "steps" if len(each) > 1 else "step"
        lines.append(f"{word} {dots}{steps}: {each[-1].get('message')}")
    return lines


def _measurements(results: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Returns the records of the first seed if a stage is a comparison of search methods."""
    first = results[0]
    if not isinstance(first, list):
        return []
    return [each for each in first if isinstance(each, Mapping) and "method" in each]


def _combined(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines the results of a stage's seeds; numbers that are not figures are averaged."""
    first = results[0]
    if "ci95" in first:
        return combine_seeds([dict(each) for each in results])
    combined: dict[str, Any] = {}
    for name, value in first.items():
        have = [each[name] for each in results if name in each]
        if isinstance(value, Mapping):
            combined[name] = _combined(have)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            combined[name] = sum(have) if name == "wall_seconds" else sum(have) / len(have)
        else:
            combined[name] = value
    return combined
