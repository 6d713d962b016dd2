"""Settings that every config of RL with verifiable rewards shares; not a recipe by itself.

`get_section` has the fields of one RL training, as `launch/schema/rl.py` describes them. A recipe
adds what is trained on what.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import optimizer, sections

# Sequences that go through the model at a time in training.
MICROBATCH_ROWS = 8


def get_algorithm(variant: str) -> ConfigDict:
    """Returns a variant and every setting that may override it; None takes the variant's."""
    return ConfigDict(
        {
            "variant": variant,
            "advantage": {
                "estimator": placeholder(str),
                "unbiased_std": placeholder(bool),
                "std_epsilon": placeholder(float),
            },
            "aggregation": placeholder(str),
            "loss": {
                "objective": placeholder(str),
                "ratio_level": placeholder(str),
                "clip_low": placeholder(float),
                "clip_high": placeholder(float),
                "dual_clip": placeholder(float),
                "beta": placeholder(float),
                "kl_estimator": placeholder(str),
                "kl_in": placeholder(str),
                "tis_cap": placeholder(float),
                "mask_low": placeholder(float),
                "mask_high": placeholder(float),
                "correction_level": placeholder(str),
            },
            "dynamic_sampling": placeholder(bool),
            "max_resamples": 4,
            # "problem" or "task" asks less of those whose answers were all right or all wrong.
            "adaptive_sampling": "off",
            # Steps after which the policy becomes the new reference of the KL term.
            "reference_every": placeholder(int),
        }
    )


def get_section(rewards: str | dict = "accuracy=1,format=0.2") -> ConfigDict:
    """Returns one RL training on one accelerator; `row_length` leaves 512 tokens for a prompt."""
    config = get_algorithm("grpo")
    config.rewards = rewards
    config.reward_workers = 4
    # Limits of one reward on one completion.
    config.reward_timeout_s = 5.0
    config.reward_memory_mb = 1024

    config.prompts = 256
    config.group = 5
    config.max_new_tokens = 512
    config.temperature = 1.0
    config.sampler_rows = 640
    # Updates per pass over a rollout batch, and passes over it.
    config.minibatches = 4
    config.epochs = 1
    config.recompute_old = True
    # 1 samples the next rollouts during the update, with weights that are one iteration old; this
    # needs an importance correction, such as loss.tis_cap=2.
    config.staleness = 0
    # "int8" samples with int8 kernels; it needs an importance correction, too.
    config.sampler_weights = "exact"
    # The same for keys and values: int8 halves the memory of long chains.
    config.sampler_cache = "exact"
    config.rollout_server = sections.get_rollout_server()
    # Each completion has a row, so that the longest fit; empty rows cost nothing.
    completions = config.get_ref("prompts") * config.get_ref("group")
    completions //= config.get_ref("minibatches")
    config.microbatches = (completions + MICROBATCH_ROWS - 1) // MICROBATCH_ROWS
    config.rows = config.get_ref("microbatches") * MICROBATCH_ROWS
    config.row_length = config.get_ref("max_new_tokens") + 512
    # Not on TPUs, whose attention kernel has no shared prompts.
    config.share_prompts = False

    # None takes as many steps as `data_epochs` passes over the training problems need.
    config.steps = placeholder(int)
    config.data_epochs = 15.0
    config.optimizer = optimizer.get_optimizer(
        "constant", learning_rate=1e-6, b2=0.999, weight_decay=0.01
    )
    config.lora = sections.get_lora()
    # The run says what keeps it from learning; "stop" ends runs that cannot recover.
    config.diagnosis = "warn"
    config.sample_every = 20
    config.checkpoint_every = 80
    # Also so many minutes after the last checkpoint.
    config.checkpoint_every_minutes = placeholder(float)
    return config
