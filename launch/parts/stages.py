"""Runs the stages of a job: each works in a directory of its own and leaves its results there.

A directory has `settings.json` (all that the stage's result depends on) and, once the stage is
complete, `result.json`. It has `stopped.json` if the stage's training stopped itself (see
`launch.parts.endings`). A stage that trains also leaves `hf/` (weights and tokenizer in HF layout),
`checkpoints/` (orbax, to resume from), `metrics.jsonl`, `samples.jsonl`, `tensorboard/` and
`graded.jsonl` (every graded response).
"""

import dataclasses
import functools
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
from jax.sharding import Mesh

from launch.parts.endings import STOPPED_FILE, Stopped, read_stop
from launch.schema.sections import Evaluation, Run
from models import processes
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.files import read_json, write_atomically
from models.hf.export import export_model
from models.hf.load import load_params
from models.host.storage import files_below
from models.tokens.tokenizer import Tokenizer
from reasoning.evaluation import Graded, evaluate, evaluate_votes
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.jsonl import write_jsonl
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import Task, get_task

# What a training found wrong with itself, a list; see `rl.guards.diagnosis`.
WARNINGS_FILE = "warnings.json"
SETTINGS_FILE, RESULT_FILE = "settings.json", "result.json"
# The most differing fields that an error names.
DIFFERENCES_SHOWN = 3

# Graded responses -> further figures of a report.
Measure = Callable[[list[Graded]], dict[str, Any]]
Config = TypeVar("Config", bound=Run)


@dataclasses.dataclass(frozen=True)
class Workspace(Generic[Config]):
    """What the stages of one training run share.

    Attributes:
      directory: the run's directory; each stage has a folder in it.
      config: the run's config.
      seed: the run's seed; every random draw follows from it.
      mesh: the devices.
      model: the model that stages train and sample.
      tokenizer: the model's tokenizer.
      accept_stopped: stages whose last good checkpoint becomes their result if their training has
        stopped itself.
      export_dtype: dtype of exported weights; None is the model's `param_dtype`.
    """

    directory: Path
    config: Config
    seed: int
    mesh: Mesh
    model: LanguageModel
    tokenizer: Tokenizer
    accept_stopped: tuple[str, ...] = ()
    export_dtype: str | None = None

    def stage_of(self, directory: Path) -> str:
        """Returns the stage that owns a directory, which may lie inside the stage's directory."""
        return directory.relative_to(self.directory).parts[0]

    def stage_directory(self, stage: str) -> Path:
        """Returns the directory of a stage."""
        return self.directory / stage

    def generator(self, rows: int) -> JaxGenerator:
        """Returns a generator that samples `rows` sequences at a time; only its first use compiles.

        The generator is kept for later calls. It has no weights: use it within
        `with generator.holding(params):`. They are those of `model.base`, so adapters are merged.
        """
        if rows not in self._generators:
            self._generators[rows] = JaxGenerator(self.model.base, None, self.tokenizer, rows=rows)
        return self._generators[rows]

    @functools.cached_property
    def _generators(self) -> dict[int, JaxGenerator]:
        return {}


def run_stage(
    work: Workspace,
    stage: str,
    settings: Mapping[str, Any],
    run: Callable[[Path], Any],
    extendable: str | None = None,
) -> Any:
    """Runs a stage, unless it is complete with these settings.

    Args:
      work: the run that the stage belongs to.
      stage: the stage's name.
      settings: JSON-able; all that the stage's result depends on.
      run: stage directory -> report. The report is a mapping, such as `publish` returns, or a list.
      extendable: name of a number among the settings. If it is larger than in the last run, the
        stage continues from its last checkpoint.

    Returns:
      The report. A mapping also gets `wall_seconds`; `stopped` if the stage's training stopped
      itself and its last good checkpoint became the result; and `warnings` if the training found
      something wrong with itself.

    Raises:
      ValueError: the directory holds a stage with other settings, or a damaged file.
      Stopped: the stage's training has stopped itself, now or before, and `work.accept_stopped`
        does not name the stage.
    """
    directory = work.stage_directory(stage)
    settings = json.loads(json.dumps(settings))
    done = directory / RESULT_FILE
    # The main process changes these files while others look at them.
    saved = processes.from_main(saved_settings(work, stage))
    complete = processes.from_main(done.exists())
    if saved is not None and saved != settings:
        if extendable is None or not _extends(saved, settings, extendable):
            raise ValueError(
                f"{directory} holds a {stage} stage of another config:"
                f" {_differences(saved, settings)}; give another --workdir, or remove that folder"
            )
        print(
            f"{stage}: goes on from {extendable}={saved[extendable]} to {settings[extendable]}",
            flush=True,
        )
        complete = False
        if processes.is_main():
            done.unlink(missing_ok=True)
    if complete:
        print(f"{stage}: complete, taken from {directory}", flush=True)
        return read_result(work, stage)
    write_atomically(directory / SETTINGS_FILE, json.dumps(settings, indent=2))
    start = time.monotonic()
    report = run(directory)
    if isinstance(report, Mapping):
        report = {"wall_seconds": time.monotonic() - start, **report}
        stops = [read_stop(path.parent) for path in _found(directory, STOPPED_FILE)]
        if stops:
            report["stopped"] = [dataclasses.asdict(stop) for stop in stops if stop]
        warnings = [
            warning
            for path in _found(directory, WARNINGS_FILE)
            for warning in read_json(path, "remove it", (list,))
        ]
        if warnings:
            report["warnings"] = warnings
    write_atomically(done, json.dumps(report, indent=2))
    return report


def read_result(work: Workspace, stage: str) -> Any:
    """Reads the report of a complete stage.

    Raises:
      FileNotFoundError, ValueError: there is no report, or its file is damaged.
    """
    path = work.stage_directory(stage) / RESULT_FILE
    remedy = "remove it, and the same command evaluates the stage again, with its trained weights"
    found = read_json(path, remedy, (dict, list))
    whole = "wall_seconds" in found if isinstance(found, dict) else isinstance(found[0], dict)
    if not whole:
        raise ValueError(f"{path} is damaged (it holds no report): {remedy}")
    return found


def _extends(saved: Mapping[str, Any], settings: Mapping[str, Any], extendable: str) -> bool:
    """Tells whether the settings differ in nothing but a larger `extendable`."""
    if saved.get(extendable) is None:
        return False
    same = {**saved, extendable: settings[extendable]} == settings
    return same and settings[extendable] > saved[extendable]


def _differences(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Says in words which fields differ, and how."""
    before, now = _leaves(saved), _leaves(settings)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    differences = [
        f"{name} is {_shown(before, name)} there and {_shown(now, name)} here"
        for name in names[:DIFFERENCES_SHOWN]
    ]
    if len(names) > len(differences):
        differences.append(f"{len(names) - len(differences)} more fields differ")
    return ", ".join(differences)


def _leaves(settings: Any, path: str = "") -> dict[str, Any]:
    """Returns the values of nested settings by dotted path."""
    if not isinstance(settings, Mapping) or not settings:
        return {path: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _leaves(value, f"{path}.{key}" if path else str(key))
    return flat


def _shown(leaves: Mapping[str, Any], name: str) -> str:
    return f"{leaves[name]!r:.80}" if name in leaves else "absent"


def saved_settings(work: Workspace, stage: str) -> dict[str, Any] | None:
    """Reads the settings that a stage was begun with; returns None if it was not begun.

    Raises:
      ValueError: the file is damaged.
    """
    path = work.stage_directory(stage) / SETTINGS_FILE
    if not path.exists():
        return None
    return read_json(
        path, f"put it back, or remove the folder {path.parent} to run the stage {stage} anew"
    )


def publish(
    work: Workspace, directory: Path, params: Any, measure: Measure | None = None
) -> dict[str, Any]:
    """Exports a stage's parameters and evaluates them; returns the report. See `score`."""
    # An older export comes from a run that was killed before the end of its evaluation.
    export_model(
        directory / "hf",
        work.model.config,
        params,
        work.tokenizer,
        dtype=work.export_dtype,
        overwrite=True,
    )
    return score(work, directory, params, measure)


def score(
    work: Workspace, directory: Path, params: Any, measure: Measure | None = None
) -> dict[str, Any]:
    """Evaluates parameters and writes the graded responses; returns `{"metrics": ...}`.

    If the config's `evaluation.votes` names the stage, votes of many samples are evaluated too.

    Args:
      measure: adds figures of the graded responses, such as a user's rewards.
    """
    metrics, graded = evaluate_params(work, params)
    write_jsonl(directory / "graded.jsonl", [each.record() for each in graded])
    if measure is not None and graded:
        metrics |= measure(graded)
    votes = work.config.evaluation.votes
    if votes is not None and directory.name in votes.stages:
        problems = evaluation_problems(work.config.evaluation, work.seed)
        asked = {domain: problems[domain] for domain in votes.domains if domain in problems}
        metrics |= _evaluate(work, params, evaluate_votes, asked, votes.samples)
    return {"metrics": metrics}


def load_stage(work: Workspace, stage: str) -> Any:
    """Loads the parameters that a complete stage has exported.

    Raises:
      FileNotFoundError: the stage is not complete.
      Stopped: the stage's training has stopped itself.
      ValueError: the export is damaged.
    """
    directory = work.stage_directory(stage)
    check_complete(directory, stage)
    return load_params(directory / "hf", work.model.config, work.mesh)


def check_complete(directory: Path, stage: str) -> None:
    """Raises `Stopped` or `FileNotFoundError` if a stage's directory has no result."""
    if (directory / RESULT_FILE).exists():
        return
    for path in _found(directory, STOPPED_FILE):
        if (stop := read_stop(path.parent)) is not None:
            raise Stopped(stop.message(path.parent, stage))
    raise FileNotFoundError(
        f"{directory / RESULT_FILE} does not exist: run the stage {stage} first (--stages={stage})"
    )


def _found(directory: Path, name: str) -> list[Path]:
    """Returns the files of a name in a stage's folder, and below it."""
    large = ("checkpoints", "reference", "tensorboard", "hf")
    return [path for path in files_below(directory, skipped=large) if path.name == name]


def evaluation_problems(
    config: Evaluation, seed: int, at_most: int | None = None
) -> dict[str, tuple[Task, list[Problem]]]:
    """Returns the task and the held-out problems of each domain.

    A domain with fewer problems than asked for gives all that it has.

    Args:
      config: says which tasks, and how many problems of each.
      seed: decides which problems.
      at_most: the most problems of a domain, drawn from those of the whole evaluation.
    """
    chosen = {}
    for domain, spec in config.tasks.items():
        if not spec:
            continue
        task = get_task(spec)
        count = None if task.evaluated_whole else config.problems
        problems = task.problems("test", count, seed)
        if at_most is not None and at_most < len(problems):
            problems = random.Random(seed).sample(problems, at_most)
        chosen[domain] = (task, problems)
    return chosen


def evaluate_params(
    work: Workspace, params: Any, at_most: int | None = None
) -> tuple[dict[str, dict[str, Any]], list[Graded]]:
    """Returns metrics and graded responses on the held-out problems.

    All stages of a seed get the same problems. Both results are empty if the config names no task.
    """
    problems = evaluation_problems(work.config.evaluation, work.seed, at_most)
    if not problems:
        return {}, []
    return _evaluate(work, params, evaluate, problems, work.config.evaluation.samples)


def _evaluate(
    work: Workspace,
    params: Any,
    evaluation: Callable[..., Any],
    problems: Mapping[str, tuple[Task, list[Problem]]],
    samples: int,
) -> Any:
    """Calls `evaluation`, a function like `evaluate`, on the responses of these parameters."""
    config = work.config.evaluation
    with work.generator(config.rows).holding(params) as generator, jax.set_mesh(work.mesh):
        return evaluation(
            generator,
            problems,
            get_template(work.config.template, work.tokenizer),
            num_samples=samples,
            max_new_tokens=config.max_new_tokens,
            sampling=SamplingParams(temperature=config.temperature, top_p=config.top_p),
            seed=work.seed,
        )


def check_prompts(
    work: Workspace, prompts: list[str], max_new_tokens: int, room: int | None = None
) -> int:
    """Returns the tokens of the longest prompt.

    Raises:
      ValueError: a prompt and its response exceed the context or `room` tokens.
    """
    lengths = [len(ids) for ids in work.tokenizer.encode_prompts(prompts)]
    needed = max(lengths) + max_new_tokens
    context = work.model.config.max_length
    for limit, name in ((context, "the model's context"), (room, "row_length")):
        if limit is not None and needed > limit:
            raise ValueError(
                f"a prompt of {max(lengths)} tokens and max_new_tokens={max_new_tokens} exceed"
                f" {name} of {limit} tokens: shorten one of them, or raise the limit"
            )
    return max(lengths)
