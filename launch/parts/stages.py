"""Stages of a job: each does its work in a directory, and leaves its results there.

A directory has `settings.json`, what the stage's result depends on, and, once the stage is
complete, `result.json`. One that trains also leaves `hf/` (weights and tokenizer in HF layout),
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
from typing import Any

import jax
from jax.sharding import Mesh

from launch.parts.report import write_atomically
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.hf.export import export_model
from models.hf.load import load_params
from models.tokens.tokenizer import Tokenizer
from reasoning.evaluation import Graded, evaluate, evaluate_votes
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.jsonl import write_jsonl
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import Task, get_task

SETTINGS_FILE, RESULT_FILE = "settings.json", "result.json"


class Interrupted(Exception):
    """A signal ended a stage; the same command goes on with it."""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """What the stages of one training run share.

    Attributes:
      directory: of this run; each stage has a folder in it.
      seed: of this run; every random draw follows from it.
    """

    directory: Path
    config: Any
    seed: int
    mesh: Mesh
    model: LanguageModel
    tokenizer: Tokenizer

    def stage_directory(self, stage: str) -> Path:
        return self.directory / stage

    def generator(self, rows: int) -> JaxGenerator:
        """A sampler of `rows` samples at a time, kept, so that only its first use compiles.

        It has no weights: give it some, and take them away when done.
        """
        if rows not in self._generators:
            self._generators[rows] = JaxGenerator(self.model, None, self.tokenizer, rows=rows)
        return self._generators[rows]

    @functools.cached_property
    def _generators(self) -> dict[int, JaxGenerator]:
        return {}


def run_stage(
    work: Workspace, stage: str, settings: Mapping[str, Any], run: Callable[[Path], Any]
) -> Any:
    """Runs a stage, unless that has been done with these settings.

    Args:
      settings: JSON-able; all that the stage's result depends on.
      run: stage directory -> its report: a mapping, such as `publish` returns, or a list.

    Returns:
      The report; a mapping has `wall_seconds` too.

    Raises:
      ValueError: the directory is of a stage with other settings.
    """
    directory = work.stage_directory(stage)
    settings = json.loads(json.dumps(settings))
    saved = saved_settings(work, stage)
    if saved not in (None, settings):
        raise ValueError(
            f"{directory} holds a {stage} stage of another config; give another --workdir, or "
            "remove that folder"
        )
    done = directory / RESULT_FILE
    if done.exists():
        print(f"{stage}: complete, taken from {directory}", flush=True)
        return json.loads(done.read_text())
    write_atomically(directory / SETTINGS_FILE, json.dumps(settings, indent=2))
    start = time.monotonic()
    report = run(directory)
    if isinstance(report, Mapping):
        report = {"wall_seconds": time.monotonic() - start, **report}
    write_atomically(done, json.dumps(report, indent=2))
    return report


def saved_settings(work: Workspace, stage: str) -> dict[str, Any] | None:
    """The settings that a stage was begun with; None where it was not."""
    path = work.stage_directory(stage) / SETTINGS_FILE
    return json.loads(path.read_text()) if path.exists() else None


def publish(work: Workspace, directory: Path, params: Any) -> dict[str, Any]:
    """Exports a stage's parameters and evaluates them; returns its report."""
    # An export that is there is from a run that was killed before its evaluation was done.
    export_model(directory / "hf", work.model.config, params, work.tokenizer, overwrite=True)
    return score(work, directory, params)


def score(work: Workspace, directory: Path, params: Any) -> dict[str, Any]:
    """Evaluates parameters and leaves the graded responses; returns `{"metrics": ...}`.

    Where the config's `evaluation.votes` names the stage, so are votes of many samples.
    """
    metrics, graded = evaluate_params(work, params)
    write_jsonl(directory / "graded.jsonl", [each.record() for each in graded])
    votes = work.config.evaluation.get("votes")
    if votes is not None and directory.name in votes.stages:
        problems = evaluation_problems(work.config.evaluation, work.seed)
        asked = {domain: problems[domain] for domain in votes.domains if domain in problems}
        metrics |= _evaluate(work, params, evaluate_votes, asked, votes.samples)
    return {"metrics": metrics}


def load_stage(work: Workspace, stage: str) -> Any:
    """Parameters that a complete stage has exported."""
    directory = work.stage_directory(stage) / "hf"
    if not directory.exists():
        raise FileNotFoundError(
            f"{directory} does not exist: run the stage {stage} first (--stages={stage})"
        )
    return load_params(directory, work.model.config, work.mesh)


def evaluation_problems(
    config: Any, seed: int, at_most: int | None = None
) -> dict[str, tuple[Task, list[Problem]]]:
    """Held-out problems by domain; all there are where a domain has fewer than asked for.

    Args:
      at_most: problems of a domain, drawn from those of the whole evaluation.
    """
    chosen = {}
    for domain, spec in config.tasks.items():
        if not spec:
            continue
        task = get_task(spec)
        count = None if domain in ("knowledge", "chat") else config.problems
        problems = task.problems("test", count, seed)
        if at_most is not None and at_most < len(problems):
            problems = random.Random(seed).sample(problems, at_most)
        chosen[domain] = (task, problems)
    return chosen


def evaluate_params(
    work: Workspace, params: Any, at_most: int | None = None
) -> tuple[dict[str, dict[str, Any]], list[Graded]]:
    """Metrics on held-out problems, the same ones for every stage of a seed.

    There are none where the config names no task.
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
    """`evaluate`, or a function of its arguments, with responses of these parameters."""
    config = work.config.evaluation
    generator = work.generator(config.rows)
    generator.params = params
    try:
        with jax.set_mesh(work.mesh):
            return evaluation(
                generator,
                problems,
                get_template(work.config.template, work.tokenizer),
                num_samples=samples,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.temperature),
                seed=work.seed,
            )
    finally:
        generator.params = None  # Their memory is the training's.


def check_prompts(
    work: Workspace, prompts: list[str], max_new_tokens: int, room: int | None = None
) -> None:
    """Raises `ValueError` where a prompt and its completion exceed the context or `room` tokens."""
    lengths = [len(ids) for ids in work.tokenizer.encode_batch(prompts)]
    needed = max(lengths) + max_new_tokens
    context = work.model.config.max_length
    for limit, name in ((context, "the model's context"), (room, "row_length")):
        if limit is not None and needed > limit:
            raise ValueError(
                f"a prompt of {max(lengths)} tokens and max_new_tokens={max_new_tokens} exceed"
                f" {name} of {limit} tokens: shorten one, or allow more"
            )
