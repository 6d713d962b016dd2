"""RL with verifiable rewards, from any model that `models.checkpoint` opens.

    python -m launch.run_rl --config=configs/gsm8k_grpo.py --config.model=MODEL \
        --workdir=runs/gsm8k

Evaluates the model, trains it, evaluates it again. `workdir` gets report.json, rl.png, samples.json
and the folders `initial` and `rl` (see `launch/parts/stages.py`); `rl/hf` is the trained model. A
run that was interrupted goes on where it was, by the same command.
"""

from collections.abc import Sequence

from absl import flags

from launch import schema
from launch.parts import runtime
from launch.schema.rl import RlConfig


def main(argv):
    del argv
    run(runtime.read_config(_CONFIG, RlConfig), _WORKDIR.value, _ACCEPT_STOPPED.value)


def run(config, workdir: str, accept_stopped: Sequence[str] = ()) -> None:
    """The whole job; see the module's docstring."""
    config = schema.load(RlConfig, config)
    # JAX starts here, once XLA's flags are set.
    from launch.jobs import finetune

    finetune.run(config, workdir, "rl", _prepare, accept_stopped)


def _prepare(work):
    """Checks everything that RL needs; returns the training."""
    from launch.jobs import finetune, held_out_rewards, training
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
            f"all {len(problems)} problems of {config.task} have prompts of more than"
            f" max_prompt_tokens={config.max_prompt_tokens} tokens, the shortest of"
            f" {min(map(len, prompts))}"
        )
    print(f"{len(kept)} training problems, {len(problems) - len(kept)} left out for their length")
    plan = training.plan_reinforce(work, kept, config)
    measure = held_out_rewards.make_measure(config)

    def evaluate(params):
        metrics, graded = stages.evaluate_params(work, params, config.evaluation.problems_during)
        if measure is not None and graded:
            metrics |= measure(graded)
        return {f"test/{name}": figure["mean"] for name, figure in metrics.items()}

    def train(params, directory):
        return training.reinforce(
            work, params, plan, directory,
            evaluation=evaluate, evaluate_every=config.evaluate_every,
        )  # fmt: skip

    return finetune.Training(
        run=train,
        settings={
            # What they come to; the result does not depend on where they are from.
            "steps": plan.num_steps,
            "data_epochs": None,
            "data_sha256": data_files.fingerprints([config.task]),
        },
        measure=measure,
        measure_fields=("rewards",),
        extendable="steps" if config.extendable else None,
    )


if __name__ == "__main__":
    # Here, so that a program may import several entry points: flags are global.
    _CONFIG = runtime.define_config("configs/gsm8k_grpo.py")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/rl", "where everything is written")
    _ACCEPT_STOPPED = runtime.define_accept_stopped()
    runtime.run_main(main)
