"""Distillation: the ability of a reasoner in a smaller student.

    python -m launch.run_distill --config=configs/distill.py --config.teacher=DIR_OR_HF_NAME \
        --config.student=DIR_OR_HF_NAME --workdir=runs/distill

Evaluates teacher and student, trains the student by each of `--config.methods` and evaluates what
comes out; the methods are those of `launch/distillation.py`. `workdir` gets report.json and for
every seed the folders `teacher` (responses.jsonl: what it taught), `base` (the student before) and
one for each method, whose `hf/` is the trained model. A run that was interrupted goes on where it
was, by the same command.
"""

import json
import time

from absl import flags
from ml_collections import config_flags

from launch import runtime


def main(argv):
    del argv
    run(_CONFIG.value, _WORKDIR.value, _SEEDS.value)


def run(config, workdir: str, seeds: int = 1) -> None:
    """The whole job; see the module's docstring."""
    # JAX starts here, once XLA's flags are set.
    from launch import report, stages

    start = time.monotonic()
    runtime.start_distributed()
    directory = runtime.as_directory(workdir)
    by_seed = []
    try:
        for seed in range(config.seed, config.seed + seeds):
            by_seed.append(_run_seed(config, directory / f"seed_{seed}", seed))
    except stages.Interrupted as interruption:
        print(f"interrupted: {interruption}; the same command goes on from here")
        return
    combined = report.combine_seeds(by_seed)
    summary = {
        "config": json.loads(config.to_json_best_effort()),
        "seeds": seeds,
        "wall_seconds": time.monotonic() - start,
        "distill": combined,
    }
    report.write_report(directory / "report.json", summary)
    report.print_table(combined, seeds)
    print(f"report: {directory / 'report.json'}")


def _run_seed(config, directory, seed):
    from launch import distillation, stages, training
    from models.decoder import LanguageModel
    from models.hf.load import load_config, load_params
    from models.hf.source import resolve
    from models.tokenizer import Tokenizer
    from reasoning.tasks import get_task
    from reasoning.tiny_world import corpus

    mesh = runtime.build_mesh(config.mesh)
    source = resolve(config.teacher.format(seed=seed))
    model = LanguageModel(load_config(source))
    tokenizer = Tokenizer.from_directory(source)
    teacher = stages.Workspace(directory, config, seed, mesh, model, tokenizer)
    student = stages.Workspace(
        directory, config, seed, mesh, runtime.build_model(config.base.model), tokenizer
    )
    problems = [
        problem
        for task, count in config.problems.items()
        for problem in get_task(task).problems("train", count, seed)
    ]

    def make_base(directory):
        pretrain = config.base.pretrain
        texts = corpus.documents(pretrain.documents, seed)
        return training.pretrain(student, texts, pretrain, directory)

    settings = {
        "seed": seed, "teacher": str(source), "base": config.base.to_dict(),
        "template": config.template, "problems": config.problems.to_dict(),
        "evaluation": config.evaluation.to_dict(),
    }  # fmt: skip
    params = load_params(source, model.config, mesh)
    return distillation.distill(
        student, teacher, params, problems, config, config.methods, make_base, settings
    )


if __name__ == "__main__":
    # Here, so that a program may import several entry points: flags are global.
    _CONFIG = config_flags.DEFINE_config_file("config", "configs/distill.py", "the recipe")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/distill", "where everything is written")
    _SEEDS = flags.DEFINE_integer("seeds", 1, "training runs, each its own", lower_bound=1)
    runtime.run_main(main)
