"""RL with verifiable rewards, from any model that `models.checkpoint` opens.

    python -m launch.run_rl --config=configs/gsm8k_grpo.py --config.model=MODEL \
        --workdir=runs/gsm8k

Evaluates the model, trains it, evaluates it again. `workdir` gets report.json, rl.png, samples.json
and the folders `initial` and `rl` (see `launch/parts/stages.py`); `rl/hf` is the trained model. A run
that was interrupted goes on where it was, by the same command.
"""

from absl import flags
from ml_collections import config_flags

from configs.gsm8k_grpo import get_config
from launch.parts import runtime


def main(argv):
    del argv
    run(_CONFIG.value, _WORKDIR.value)


def run(config, workdir: str) -> None:
    """The whole job; see the module's docstring."""
    # JAX starts here, once XLA's flags are set.
    from launch.jobs import finetune

    finetune.run(config, get_config(), workdir, "rl", _prepare)


def _prepare(work):
    """Checks everything that RL needs; returns the training."""
    from launch.jobs import training
    from launch.parts import stages
    from reasoning.prompts import get_template
    from reasoning.tasks import get_task

    config = work.config
    if config.row_length < config.max_prompt_tokens + config.max_new_tokens:
        raise ValueError(
            f"row_length={config.row_length} is too short for max_prompt_tokens="
            f"{config.max_prompt_tokens} and max_new_tokens={config.max_new_tokens}"
        )
    needed = config.prompts * config.group // config.minibatches
    if config.rows < needed:
        raise ValueError(
            f"rows={config.rows} may not hold the {needed} completions of a minibatch: set"
            f" rows={needed} (rows that stay empty cost nothing)"
        )
    problems = get_task(config.task).problems("train", config.problems, work.seed)
    template = get_template(config.template, work.tokenizer)
    prompts = work.tokenizer.encode_batch([template(problem.question) for problem in problems])
    kept = [p for p, ids in zip(problems, prompts) if len(ids) <= config.max_prompt_tokens]
    if not kept:
        raise ValueError(
            f"all {len(problems)} problems of {config.task} have prompts of more than"
            f" max_prompt_tokens={config.max_prompt_tokens} tokens, the shortest of"
            f" {min(map(len, prompts))}"
        )
    print(f"{len(kept)} training problems, {len(problems) - len(kept)} left out for their length")
    plan = training.plan_reinforce(work, kept, config)

    def evaluate(params):
        metrics, _ = stages.evaluate_params(work, params, config.evaluation.problems_during)
        return {f"test/{name}": figure["mean"] for name, figure in metrics.items()}

    def train(params, directory):
        return training.reinforce(work, params, plan, directory, evaluation=evaluate)

    return train


if __name__ == "__main__":
    # Here, so that a program may import several entry points: flags are global.
    _CONFIG = config_flags.DEFINE_config_file("config", "configs/gsm8k_grpo.py", "the recipe")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/rl", "where everything is written")
    runtime.run_main(main)
