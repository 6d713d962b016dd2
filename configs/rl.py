"""What recipes of RL with verifiable rewards start from: every field that `launch.run_rl` reads.

Not run by itself. A recipe takes `get_config()`, names its model and task, and sets what is its
own; `configs/gsm8k_grpo.py` is one. The values here are for a model of about a billion weights: the
settings of verl's GRPO examples (https://github.com/volcengine/verl, examples/grpo_trainer).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Sequences that go through the model at a time in training.
MICROBATCH_ROWS = 8


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    # A checkpoint in Hugging Face layout, and a task of `reasoning.tasks`: the recipe's.
    config.model = ""
    config.task = ""
    # "auto" is bfloat16 on accelerators and float32 on CPU; weights and optimizer are float32.
    config.dtype = "auto"
    config.remat = "full"
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    # Entries of the table in `models/sharding.py` to be otherwise: logical axis -> mesh axes.
    config.sharding = ConfigDict()

    config.template = "chat_r1"
    # Training problems, drawn at random; None is all.
    config.problems = placeholder(int)
    # Problems with longer prompts are left out.
    config.max_prompt_tokens = 512

    config.variant = "grpo"
    # What differs from the variant; None is as the variant has it.
    config.loss = ConfigDict(
        {
            "beta": placeholder(float),
            "clip_low": placeholder(float),
            "clip_high": placeholder(float),
            "kl_estimator": placeholder(str),
            "kl_in": placeholder(str),
        }
    )
    # After so many steps the reference policy of the KL term is renewed; None is never.
    config.reference_every = placeholder(int)
    config.rewards = "accuracy=1,format=0.2"
    config.reward_workers = 4

    config.prompts = 256
    config.group = 5
    config.max_new_tokens = 512
    config.temperature = 1.0
    config.sampler_rows = 640
    # Updates of a rollout batch, and passes over it.
    config.minibatches = 4
    config.epochs = 1
    config.recompute_old = True
    # A row for each completion, so that the longest fit; rows that stay empty cost nothing.
    completions = config.get_ref("prompts") * config.get_ref("group")
    completions //= config.get_ref("minibatches")
    config.microbatches = (completions + MICROBATCH_ROWS - 1) // MICROBATCH_ROWS
    config.rows = config.get_ref("microbatches") * MICROBATCH_ROWS
    config.row_length = config.get_ref("max_prompt_tokens") + config.get_ref("max_new_tokens")

    config.steps = 1000
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-6,
            "schedule": "constant",
            "warmup_steps": 0,
            "b2": 0.999,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        }
    )
    config.sample_every = 20
    config.evaluate_every = 80
    config.checkpoint_every = 80

    config.evaluation = ConfigDict(
        {
            # Follows `task` unless it is set; test problems of every task are never trained on.
            "tasks": {"math": config.get_ref("task")},
            # None is the whole test split; at most so many during training.
            "problems": placeholder(int),
            "problems_during": 256,
            "samples": 1,
            "max_new_tokens": config.get_ref("max_new_tokens"),
            "temperature": 0.0,
            "rows": 640,
        }
    )
    return config
