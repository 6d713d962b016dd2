r"""Distils a teacher's reasoning into a smaller student.

    python -m launch.run_distill --config=configs/distill.py --config.teacher=MODEL \
        --config.student=MODEL --workdir=runs/distill

Teacher and student may be any model that `models.checkpoint` opens. The program evaluates both,
trains the student by each of `--config.methods` (`launch.jobs.distillation.arms` explains them) and
evaluates each result. `workdir` gets report.json and, for every seed, the folders `teacher`
(responses.jsonl holds what it taught), `base` (the student before training) and one for each
method, whose `hf/` is the trained model. The same command continues an interrupted run.
"""

import dataclasses
import time
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from launch import schema
from launch.parts import runtime
from launch.schema.distill import DistillConfig


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    runtime.refuse_several("run_distill")
    config = runtime.read_config(_CONFIG, DistillConfig)
    run(config, _WORKDIR.value, _SEEDS.value, _ACCEPT_STOPPED.value)


def run(
    config: DistillConfig | ConfigDict,
    workdir: str,
    seeds: int = 1,
    accept_stopped: Sequence[str] = (),
) -> None:
    """Runs the job that the module describes.

    Raises:
      Interrupted: a signal ended the job; the same call continues it.
      Stopped: a training stopped itself, and `accept_stopped` does not name its stage.
    """
    config = schema.load(DistillConfig, config)
    # JAX may start only here: `run_main` has set XLA's flags.
    from launch.jobs.distillation import job

    runtime.check_accepted(accept_stopped, job.TRAINED)
    with runtime.working_directory(workdir) as directory:
        _run(config, directory, seeds, tuple(accept_stopped))


def _run(config, directory, seeds, accept_stopped):
    from launch.parts import machine, report

    start = time.monotonic()
    runtime.keep_compiled(directory)
    by_seed = [
        _run_seed(config, directory / f"seed_{seed}", seed, accept_stopped)
        for seed in range(config.seed, config.seed + seeds)
    ]
    combined = report.combine_seeds(by_seed)
    summary = {
        "config": schema.as_dict(config),
        "seeds": seeds,
        "wall_seconds": time.monotonic() - start,
        "distill": combined,
        "machine": machine.describe(),
    }
    report.write_report(directory / "report.json", summary)
    report.print_table(combined, seeds)
    print(f"report: {directory / 'report.json'}")


def _run_seed(config, directory, seed, accept_stopped):
    from launch.jobs import finetune, responses
    from launch.jobs.distillation import arms, job
    from launch.jobs.training import supervised
    from launch.parts import data_files, stages
    from models.checkpoint import load_params
    from models.checkpoint_source import locate
    from models.decoder import LanguageModel
    from reasoning.tasks import get_task
    from reasoning.tiny_world import corpora

    mesh = runtime.build_mesh(config)
    sources = {name: getattr(config, name).format(seed=seed) for name in ("teacher", "student")}
    sources = {name: locate(source) for name, source in sources.items() if source}

    def workspace(model, tokenizer, dtype=None):
        return stages.Workspace(
            directory, config, seed, mesh, model, tokenizer, accept_stopped, dtype
        )

    teacher = tokenizer = None
    if "teacher" in sources:
        model, tokenizer = finetune.open_checkpoint(sources["teacher"], config.dtype, config.remat)
        # The teacher's weights are frozen, so they need no wider dtype than the computation.
        fields = {"param_dtype": model.config.dtype, "remat": "none"}
        model = LanguageModel(model.config.replace(**fields))
        teacher = arms.Teacher(workspace(model, tokenizer), None)
    if "student" in sources:
        student = finetune.open_checkpoint(sources["student"], config.dtype, config.remat)
        work = workspace(*student, finetune.export_dtype(sources["student"], config.export_dtype))
    else:
        work = workspace(runtime.build_model(config.base.model.settings()), tokenizer)

    def make_base(directory):
        if "student" in sources:
            return load_params(sources["student"], work.model.config, mesh)
        pretrain = config.base.pretrain
        texts = corpora.documents(pretrain.corpus, pretrain.documents, seed, pretrain.varied)
        return supervised.pretrain(work, texts, pretrain, directory)

    tasks = {config.task: config.num_problems} if config.task else config.problems
    problems = [
        problem
        for task, count in tasks.items()
        for problem in get_task(task).problems("train", count, seed)
    ]
    fields = ("dtype", "remat", "mesh", "template", "task", "num_problems", "problems",
              "evaluation", "base")  # fmt: skip
    known = schema.as_dict(config)
    settings = {"seed": seed} | {name: known[name] for name in fields}
    settings |= {name: str(source) for name, source in sources.items()}
    settings["data_sha256"] = data_files.fingerprints(
        [*tasks, *config.evaluation.tasks.values()], responses.paths(config.data.responses)
    )
    job.prepare(work, teacher, problems, config)
    if teacher is not None:  # Weights are read last, once everything else is checked.
        params = load_params(sources["teacher"], teacher.work.model.config, mesh)
        teacher = dataclasses.replace(teacher, params=params)
    return job.distill(work, teacher, problems, config, make_base, settings)


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _CONFIG = runtime.define_config("configs/distill.py")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/distill", "where everything is written")
    _SEEDS = flags.DEFINE_integer(
        "seeds", 1, "training runs, each with its own seed", lower_bound=1
    )
    _ACCEPT_STOPPED = runtime.define_accept_stopped()
    runtime.run_main(main, DistillConfig)
