"""The main job: from a base model to a reasoner, stage by stage, with a report.

    python -m launch.run_r1 --config=configs/tiny.py --workdir=runs/tiny

Stages that are complete are not run again, and one that was interrupted goes on where it was.
"""

import json
import time
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from launch import runtime

STAGES = ("base", "r1_zero")

_CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py", "the recipe")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")
_STAGES = flags.DEFINE_list("stages", list(STAGES), "which stages to run, of " + ", ".join(STAGES))
_SEEDS = flags.DEFINE_integer("seeds", 1, "training runs, each with its own seed", lower_bound=1)


def main(argv):
    del argv
    # JAX starts here, once XLA's flags are set.
    from launch import report, stages
    from models.tokenizer import Tokenizer
    from reasoning.tiny_world import corpus

    start = time.monotonic()
    if unknown := [stage for stage in _STAGES.value if stage not in STAGES]:
        raise ValueError(f"--stages={unknown[0]} is unknown; choose from {', '.join(STAGES)}")
    runtime.start_distributed()
    config = _CONFIG.value
    workdir = runtime.as_directory(_WORKDIR.value)
    model, mesh = runtime.build_model(config.model), runtime.build_mesh(config.mesh)

    def tokenizer(texts) -> Tokenizer:
        directory = workdir / "tokenizer"
        if not (directory / "tokenizer.json").exists():
            _train_tokenizer(texts, config.tokenizer).save(directory)
        return Tokenizer.from_directory(directory)

    by_seed = []
    try:
        for seed in range(config.seed, config.seed + _SEEDS.value):
            texts = corpus.documents(config.pretrain.documents, seed)
            work = stages.Workspace(
                workdir / f"seed_{seed}", config, seed, mesh, model, tokenizer(texts)
            )
            by_seed.append(_run_stages(work, texts))
    except stages.Interrupted as interruption:
        print(f"interrupted: {interruption}; the same command goes on from here")
        return

    combined = report.combine_stages(by_seed)
    report.write_report(
        workdir / "report.json",
        {
            "config": json.loads(config.to_json_best_effort()),
            "seeds": _SEEDS.value,
            "wall_seconds": time.monotonic() - start,
            "stages": combined,
        },
    )
    _show(workdir, config.seed, combined)
    print(f"report: {workdir / 'report.json'}")


def _train_tokenizer(texts, config):
    from models.tokenizer import train_bpe
    from reasoning import response
    from reasoning.prompts import CHAT_TEMPLATE

    return train_bpe(
        texts[: config.documents],
        config.vocab_size,
        text_tokens=(
            response.THINK_OPEN, response.THINK_CLOSE, response.ANSWER_OPEN, response.ANSWER_CLOSE,
        ),
        eos_token="<eos>",
        pad_token="<pad>",
        template=CHAT_TEMPLATE,
    )  # fmt: skip


def _run_stages(work, texts):
    """Stage -> result, for one seed."""
    from launch import stages, training
    from reasoning.tasks import get_task

    config, results = work.config, {}
    rl = config.r1_zero
    problems = [
        problem
        for task, count in rl.problems.items()
        for problem in get_task(task).problems("train", count, work.seed)
    ]
    _assert_held_out(work, texts, {problem.question for problem in problems})
    settings = {"seed": work.seed, "model": config.model.to_dict(),
                "pretrain": config.pretrain.to_dict(), "evaluation": config.evaluation.to_dict()}  # fmt: skip
    if "r1_zero" in _STAGES.value:
        # Before pretraining, so that a fault in it costs no time.
        plan = training.plan_reinforce(work, problems, rl)
    if "base" in _STAGES.value:
        results["base"] = stages.run_stage(
            work,
            "base",
            settings,
            lambda directory: training.pretrain(work, texts, config.pretrain, directory),
        )
    if "r1_zero" in _STAGES.value:
        results["r1_zero"] = stages.run_stage(
            work,
            "r1_zero",
            settings | {"r1_zero": rl.to_dict()},
            lambda directory: training.reinforce(
                work, stages.load_stage(work, "base"), plan, directory
            ),
        )
    return results


def _assert_held_out(work, texts, trained):
    """No problem of the evaluation may occur in the corpus or among the questions `trained` on."""
    from launch import stages

    corpus = "\n".join(texts)
    for _, problems in stages.evaluation_problems(work.config.evaluation, work.seed).values():
        for problem in problems:
            # A question ends with its line, so that a longer one does not count as the same.
            if f"User: {problem.question}\n" in corpus or problem.question in trained:
                raise AssertionError(f"test problem {problem.question!r} occurs in training")


def _show(workdir: Path, seed: int, combined):
    from launch import report
    from train.metrics import METRICS_FILE

    report.print_table(combined, _SEEDS.value)
    runs = {}
    for directory in sorted(workdir.glob("seed_*/r1_zero")):
        runs[directory.parent.name] = report.read_metrics(directory / METRICS_FILE)
    if any(runs.values()):
        report.plot_training(workdir / "r1_zero.png", runs)
    directories = {stage: workdir / f"seed_{seed}" / stage for stage in combined}
    report.show_samples(workdir / "samples.json", directories)


if __name__ == "__main__":
    runtime.run_main(main)
