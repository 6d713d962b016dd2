"""What `run_rl` and `run_sft` share: from a checkpoint, evaluated before and after, to a report."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from launch.parts import machine, report, runtime, stages
from models.checkpoint_source import resolve
from models.decoder import LanguageModel
from models.hf.load import load_config, load_params
from models.tokens.tokenizer import Tokenizer
from reasoning.prompts import get_template
from train.metrics import read_metrics

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
    accept_stopped: Sequence[str] = (),
) -> None:
    """Evaluates `config.model`, trains it, evaluates it again, and reports both.

    Args:
      known: a config with every field there is, to check `config` against.
      stage: what the training is called.
      prepare: checks config and data, before any long work, and returns the training.
      accept_stopped: `[stage]` takes the last good checkpoint where the training stopped itself.

    Raises:
      Interrupted: a signal ended it; the same call goes on from there.
      Stopped: the training stopped itself, and that is not accepted.
    """
    runtime.start_distributed()
    _check_fields(config, known)
    runtime.check_accepted(accept_stopped, (stage,))
    source = resolve(config.model)
    with runtime.working_directory(workdir) as directory:
        runtime.keep_compiled(directory)
        work = _open(config, source, directory)
        work = dataclasses.replace(work, accept_stopped=tuple(accept_stopped))
        _run(work, source, stage, prepare)


def _run(
    work: stages.Workspace,
    source: Path,
    stage: str,
    prepare: Callable[[stages.Workspace], Train],
) -> None:
    start, config = time.monotonic(), work.config
    train = prepare(work)
    _check_evaluation(work)

    settings = json.loads(config.to_json_best_effort())
    initial_settings = {name: settings[name] for name in INITIAL_FIELDS}

    def load():
        return load_params(source, work.model.config, work.mesh)

    results: dict[str, Mapping[str, Any]] = {}
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
    report.write_report(
        work.directory / "report.json",
        {
            "config": settings,
            "seeds": 1,
            "wall_seconds": time.monotonic() - start,
            "stages": results,
            "machine": machine.describe(),
        },
    )
    report.print_table(results, 1)
    records = read_metrics(work.stage_directory(stage))
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
    tokenizer = Tokenizer.from_directory(source)
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
