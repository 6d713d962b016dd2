"""What `run_rl` and `run_sft` share: from a checkpoint, evaluated before and after, to a report."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from launch.parts import report, runtime, stages
from models.checkpoint import load_config, load_params, load_tokenizer
from models.checkpoint_source import locate
from models.decoder import LanguageModel
from models.tokens.tokenizer import Tokenizer
from reasoning.prompts import get_template
from train.metrics import METRICS_FILE

# From parameters and the stage's directory to new parameters.
Train = Callable[[Any, Path], Any]

DTYPES = ("auto", "float32", "bfloat16")

# What the evaluation of the given checkpoint depends on.
INITIAL_FIELDS = ("model", "dtype", "mesh", "seed", "template", "evaluation")


def run(
    config: Any,
    known: Any,
    workdir: str,
    stage: str,
    prepare: Callable[[stages.Workspace], Train],
) -> None:
    """Evaluates `config.model`, trains it, evaluates it again, and reports both.

    Args:
      known: a config with every field there is, to check `config` against.
      stage: what the training is called.
      prepare: checks config and data, before any long work, and returns the training.
    """
    start = time.monotonic()
    runtime.start_distributed()
    _check_fields(config, known)
    source = locate(config.model)
    directory = runtime.as_directory(workdir)
    runtime.keep_compiled(directory)
    work = _open(config, source, directory)
    train = prepare(work)
    _check_evaluation(work)

    settings = json.loads(config.to_json_best_effort())
    initial_settings = {name: settings[name] for name in INITIAL_FIELDS}

    def load():
        return load_params(source, work.model.config, work.mesh)

    results: dict[str, Mapping[str, Any]] = {}
    try:
        if any(config.evaluation.tasks.values()):
            results["initial"] = stages.run_stage(
                work,
                "initial",
                initial_settings,
                lambda directory: stages.score(work, directory, load()),
            )
        results[stage] = stages.run_stage(
            work,
            stage,
            settings,
            lambda directory: stages.publish(work, directory, train(load(), directory)),
        )
    except stages.Interrupted as interruption:
        print(f"interrupted: {interruption}; the same command goes on from here")
        return
    report.write_report(
        work.directory / "report.json",
        {
            "config": settings,
            "seeds": 1,
            "wall_seconds": time.monotonic() - start,
            "stages": results,
        },
    )
    report.print_table(results, 1)
    records = report.read_metrics(work.stage_directory(stage) / METRICS_FILE)
    if any("reward" in record for record in records):
        report.plot_training(work.directory / f"{stage}.png", {stage: records})
    report.show_samples(
        work.directory / "samples.json", {name: work.stage_directory(name) for name in results}
    )
    print(f"report: {work.directory / 'report.json'}")
    print(f"model: {work.stage_directory(stage) / 'hf'}")


def _open(config: Any, source: Path, directory: Path) -> stages.Workspace:
    """Everything but the weights of the checkpoint."""
    model, tokenizer = open_checkpoint(source, config)
    mesh = runtime.build_mesh(config.mesh)
    return stages.Workspace(directory, config, config.seed, mesh, model, tokenizer)


def open_checkpoint(source: Path, config: Any) -> tuple[LanguageModel, Tokenizer]:
    """Model and tokenizer of a checkpoint, computing in `config.dtype`."""
    dtype = config.dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    model = LanguageModel(load_config(source, dtype=dtype, remat=config.remat))
    tokenizer = load_tokenizer(source)
    tokenizer.check_fits(model.config.vocab_size)
    return model, tokenizer


def _check_fields(config: Any, known: Any, prefix: str = "") -> None:
    """A config file of the user's may lack fields, or have some that nothing reads."""
    for name in sorted(set(config) ^ set(known)):
        fault = "is unknown" if name in config else "is missing"
        raise ValueError(
            f"config field {prefix}{name} {fault}; there are {', '.join(sorted(known))}"
        )
    if "evaluation" in known:
        _check_fields(config.evaluation, known.evaluation, "evaluation.")


def _check_evaluation(work: stages.Workspace) -> None:
    """Finds what would stop the evaluation: absent data, prompts beyond the model's context."""
    config = work.config.evaluation
    for _, problems in stages.evaluation_problems(config, work.seed).values():
        template = get_template(work.config.template, work.tokenizer)
        prompts = [template(problem.question) for problem in problems]
        stages.check_prompts(work, prompts, config.max_new_tokens)
