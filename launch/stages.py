"""The stages of a recipe: each trains, exports and evaluates, and leaves its results on disk.

A stage's directory holds `hf/` (weights and tokenizer in HF layout), `checkpoints/` (orbax, to
resume from), `metrics.jsonl`, `samples.jsonl`, `tensorboard/`, `graded.jsonl` (every graded
response) and, once the stage is complete, `result.json`. A stage whose result is of the same
config is not run again.
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

from launch.report import write_atomically
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.hf.load import load_params
from models.sampler import SamplingParams
from models.tokenizer import Tokenizer
from reasoning.evaluation import Graded, evaluate
from reasoning.generator import JaxGenerator
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import Task, get_task


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

    @functools.cached_property
    def evaluator(self) -> JaxGenerator:
        """Samples in evaluations; kept, so that only the first one compiles. Has no weights."""
        return JaxGenerator(
            self.model, None, self.tokenizer, rows=self.config.evaluation.rows
        )


def run_stage(
    work: Workspace,
    stage: str,
    settings: Mapping[str, Any],
    train: Callable[[Path], Any],
    *,
    export: bool = True,
) -> dict[str, Any]:
    """Trains, exports and evaluates a stage, unless that has been done with these settings.

    Args:
      settings: JSON-able; all that the stage's result depends on.
      train: stage directory -> parameters.
      export: write the parameters to `hf/`; not for a stage that only evaluates given ones.

    Returns:
      `{"wall_seconds", "metrics"}` as `report.json` has it.
    """
    directory = work.stage_directory(stage)
    done = directory / "result.json"
    settings = json.loads(json.dumps(settings))
    if done.exists():
        result = json.loads(done.read_text())
        if result["settings"] == settings:
            print(f"{stage}: complete, taken from {directory}", flush=True)
            return {name: result[name] for name in ("wall_seconds", "metrics")}
        raise ValueError(
            f"{directory} holds a {stage} stage of another config; give another --workdir, or "
            "remove that folder"
        )
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    params = train(directory)
    if export:
        # One that is there is from a run that was killed before its evaluation was done.
        export_model(
            directory / "hf", work.model.config, params, work.tokenizer, overwrite=True
        )
    metrics, graded = evaluate_params(work, params)
    lines = [json.dumps(g.record(), ensure_ascii=False) + "\n" for g in graded]
    write_atomically(directory / "graded.jsonl", "".join(lines))
    result = {"wall_seconds": time.monotonic() - start, "metrics": metrics}
    write_atomically(done, json.dumps({"settings": settings, **result}, indent=2))
    return result


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
        count = None if domain == "knowledge" else config.problems
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
    config = work.config.evaluation
    problems = evaluation_problems(config, work.seed, at_most)
    if not problems:
        return {}, []
    work.evaluator.params = params
    try:
        with jax.set_mesh(work.mesh):
            return evaluate(
                work.evaluator,
                problems,
                get_template(work.config.template, work.tokenizer),
                num_samples=config.samples,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.temperature),
                seed=work.seed,
            )
    finally:
        work.evaluator.params = None  # Their memory is the training's.


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
