"""Evaluates a checkpoint, trains it and evaluates it again; shared by `run_rl` and `run_sft`."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from launch.parts import data_files, machine, report, runtime, stages
from launch.schema import as_dict
from launch.schema.rl import RlConfig
from launch.schema.supervised import SftConfig
from models.checkpoint import load_config, load_dtype, load_params, load_tokenizer
from models.checkpoint_source import locate
from models.decoder import LanguageModel
from models.tokens.tokenizer import Tokenizer
from reasoning.prompts import get_template

# The evaluation of the given checkpoint depends on these fields.
INITIAL_FIELDS = ("model", "dtype", "mesh", "seed", "template", "evaluation")


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that has been checked.

    Attributes:
      run: (parameters, the stage's directory) -> new parameters.
      settings: what the result depends on besides the config, such as the content of the data; a
        setting may also replace a field of the config by the value that it comes to.
      measure: computes further figures of the evaluation's responses.
      measure_fields: fields of the config that `measure` depends on.
      extendable: a number among the settings that a later run may raise; see `run_stage`.
    """

    run: Callable[[Any, Path], Any]
    settings: Mapping[str, Any]
    measure: stages.Measure | None = None
    measure_fields: tuple[str, ...] = ()
    extendable: str | None = None


def run(
    config: RlConfig | SftConfig,
    workdir: str,
    stage: str,
    prepare: Callable[[stages.Workspace], Training],
    accept_stopped: Sequence[str] = (),
) -> None:
    """Evaluates `config.model`, trains it, evaluates it again, and reports both.

    Args:
      config: the job's config.
      workdir: where everything is written.
      stage: the name of the training.
      prepare: checks config and data, before any long work, and returns the training.
      accept_stopped: `[stage]` makes the last good checkpoint the result if the training has
        stopped itself.

    Raises:
      Interrupted: a signal ended the job; the same call continues it.
      Stopped: the training stopped itself, and `accept_stopped` does not name it.
    """
    runtime.start_distributed()
    runtime.check_accepted(accept_stopped, (stage,))
    source = locate(config.model)
    with runtime.working_directory(workdir, remote=True) as directory:
        runtime.keep_compiled(directory)
        work = _open(config, source, directory)
        work = dataclasses.replace(work, accept_stopped=tuple(accept_stopped))
        _run(work, source, stage, prepare)


def _run(
    work: stages.Workspace,
    source: Path,
    stage: str,
    prepare: Callable[[stages.Workspace], Training],
) -> None:
    start, config = time.monotonic(), work.config
    training = prepare(work)
    _check_evaluation(work)

    settings = as_dict(config)
    evaluated = data_files.fingerprints(config.evaluation.tasks.values())
    initial_fields = (*INITIAL_FIELDS, *(training.measure_fields if training.measure else ()))
    initial_settings = {name: settings[name] for name in initial_fields}
    initial_settings["data_sha256"] = evaluated
    stage_settings = settings | dict(training.settings)
    stage_settings["data_sha256"] = evaluated | stage_settings["data_sha256"]

    def load():
        return load_params(source, work.model.config, work.mesh)

    results: dict[str, Mapping[str, Any]] = {}
    if any(config.evaluation.tasks.values()):
        results["initial"] = stages.run_stage(
            work,
            "initial",
            initial_settings,
            lambda directory: stages.score(work, directory, load(), training.measure),
        )
    results[stage] = stages.run_stage(
        work,
        stage,
        stage_settings,
        lambda directory: stages.publish(
            work, directory, training.run(load(), directory), training.measure
        ),
        training.extendable,
    )
    report.write_report(
        work.directory / "report.json",
        {
            # Some fields get their final value, such as the steps that the data gave.
            "config": settings | {n: x for n, x in training.settings.items() if x is not None},
            "seeds": 1,
            "wall_seconds": time.monotonic() - start,
            "stages": results,
            "machine": machine.describe(),
        },
    )
    report.print_table(results, 1)
    report.plot_training(work.directory / f"{stage}.png", {stage: work.stage_directory(stage)})
    report.show_samples(
        work.directory / "samples.json", {name: work.stage_directory(name) for name in results}
    )
    print(f"report: {work.directory / 'report.json'}")
    print(f"model: {work.stage_directory(stage) / 'hf'}")


def _open(config: RlConfig | SftConfig, source: Path, directory: Path) -> stages.Workspace:
    """Opens everything of the checkpoint but its weights."""
    model, tokenizer = open_checkpoint(source, config.dtype, config.remat)
    mesh = runtime.build_mesh(config)
    return stages.Workspace(
        directory,
        config,
        config.seed,
        mesh,
        model,
        tokenizer,
        export_dtype=export_dtype(source, config.export_dtype),
    )


def export_dtype(source: Path, wanted: str) -> str:
    """Returns the dtype in which to export weights of this checkpoint; auto is the checkpoint's."""
    return load_dtype(source) if wanted == "auto" else wanted


def open_checkpoint(
    source: Path, dtype: str, remat: str = "none"
) -> tuple[LanguageModel, Tokenizer]:
    """Returns the model and the tokenizer of a checkpoint.

    Args:
      source: the checkpoint's path.
      dtype: dtype of the computation; "auto" is float32 on a CPU and bfloat16 elsewhere.
      remat: see `ModelConfig`.
    """
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    model = LanguageModel(load_config(source, dtype=dtype, remat=remat))
    return model, load_tokenizer(source, model.config)


def _check_evaluation(work: stages.Workspace) -> None:
    """Raises an error if data are missing or prompts exceed the model's context."""
    config = work.config.evaluation
    for _, problems in stages.evaluation_problems(config, work.seed).values():
        template = get_template(work.config.template, work.tokenizer)
        prompts = [template(problem.question) for problem in problems]
        stages.check_prompts(work, prompts, config.max_new_tokens)
