r"""Trains any model that `models.checkpoint` opens by RL with verifiable rewards.

    python -m launch.run_rl --config=configs/gsm8k_grpo.py --config.model=MODEL \
        --workdir=runs/gsm8k

The program evaluates the model, trains it and evaluates it again. `workdir` gets report.json,
rl.png, samples.json and the folders `initial` and `rl` (see `launch/parts/stages.py`); `rl/hf` is
the trained model. The same command continues an interrupted run.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from launch import schema
from launch.parts import runtime
from launch.schema.rl import RlConfig


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    config = runtime.read_config(_CONFIG, RlConfig)
    if config.staleness:
        runtime.give_overlapping_programs_threads()
    run(config, _WORKDIR.value, _ACCEPT_STOPPED.value)


def run(config: RlConfig | ConfigDict, workdir: str, accept_stopped: Sequence[str] = ()) -> None:
    """Runs the job that the module describes."""
    config = schema.load(RlConfig, config)
    # JAX may start only here: `run_main` has set XLA's flags.
    from launch.jobs import finetune

    finetune.run(config, workdir, "rl", _prepare, accept_stopped)


def _prepare(work):
    """Checks everything that RL needs, and returns the training."""
    from launch.jobs import finetune, held_out_rewards
    from launch.jobs.training import reinforcement
    from launch.parts import data_files, stages
    from reasoning.prompts import get_template
    from reasoning.tasks import get_task

    config = work.config
    problems = get_task(config.task).problems("train", config.problems, work.seed)
    template = get_template(config.template, work.tokenizer)
    prompts = work.tokenizer.encode_prompts([template(problem.question) for problem in problems])
    kept = [p for p, ids in zip(problems, prompts) if len(ids) <= config.max_prompt_tokens]
    if not kept:
        raise ValueError(
            f"config.max_prompt_tokens={config.max_prompt_tokens} leaves out all {len(problems)}"
            f" problems of {config.task}: set it to at least {min(map(len, prompts))}, the length"
            " of the shortest prompt"
        )
    print(
        f"{len(kept)} training problems; {len(problems) - len(kept)} left out, with too long"
        " prompts"
    )
    plan = reinforcement.plan_reinforce(work, kept, config)
    measure = held_out_rewards.make_measure(config)

    def evaluate(params):
        metrics, graded = stages.evaluate_params(work, params, config.evaluation.problems_during)
        if measure is not None and graded:
            metrics |= measure(graded)
        return {f"test/{name}": figure["mean"] for name, figure in metrics.items()}

    def train(params, directory):
        return reinforcement.reinforce(
            work, params, plan, directory,
            evaluation=evaluate, evaluate_every=config.evaluate_every,
        )  # fmt: skip

    return finetune.Training(
        run=train,
        settings={
            # The number of steps counts, not whether `steps` or `data_epochs` has set it.
            "steps": plan.num_steps,
            "data_epochs": None,
            "data_sha256": data_files.fingerprints([config.task]),
        },
        measure=measure,
        measure_fields=("rewards",),
        extendable="steps" if config.extendable else None,
    )


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _CONFIG = runtime.define_config("configs/gsm8k_grpo.py")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/rl", "where everything is written")
    _ACCEPT_STOPPED = runtime.define_accept_stopped()
    runtime.run_main(main, RlConfig)
