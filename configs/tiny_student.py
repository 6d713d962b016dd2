"""The tiny world's student and how it is taught: settings of `launch.jobs.distillation.arms`.

For `configs/tiny_distill.py`, and for the recipe's stage `distill`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import distill, optimizer


def get_section(
    smoke: bool, pretrain: ConfigDict, rl: ConfigDict, problems: dict[str, int]
) -> ConfigDict:
    """Returns the settings of the student and of every method that teaches it.

    Args:
      smoke: run in seconds, for tests.
      pretrain: how the student's base model is trained.
      rl: the RL that distillation is compared with.
      problems: the number of problems of each task that the teacher is asked.
    """
    config = ConfigDict({"lora": distill.get_config().lora})
    config.methods = ("rl_only", "sequence", "logit", "on_policy", "distill_then_rl")
    config.problems = ConfigDict(problems)
    config.base = ConfigDict(
        {
            "model": {
                "family": "llama",
                "vocab_size": 768,
                "embed_dim": 16 if smoke else 64,
                "num_layers": 1 if smoke else 3,
                "num_heads": 4,
                "num_kv_heads": 1,
                "head_dim": 4 if smoke else 16,
                "mlp_dim": 32 if smoke else 192,
                "tie_embeddings": True,
                "max_length": 512,
                "scan_unroll": 1 if smoke else 3,
                "dtype": "float32",
            },
            "pretrain": pretrain,
        }
    )

    config.data = ConfigDict(
        {
            "responses": "",
            # Data that share this many consecutive words with the evaluation are dropped.
            "ngram": 13,
            "samples": 1,
            "form": "tags",
            "max_new_tokens": 96,
            "temperature": 1.0,
            "sampler_rows": 32 if smoke else 128,
        }
    )
    config.sequence = _training(smoke, epochs=1 if smoke else 5)
    config.logit = _training(smoke, epochs=1 if smoke else 2)
    config.logit.update(beta=0.0, temperature=1.0)
    config.logit.top_k = placeholder(int)
    config.on_policy = ConfigDict(
        {
            "beta": 0.5,
            "temperature": 1.0,
            "on_policy_share": 1.0 if smoke else 0.5,
            # The share of sequence's training that comes first; 0 starts cold.
            "warm_start": 0.0,
            "steps": 2 if smoke else 160,
            "prompts": 8 if smoke else 32,
            "group": 1,
            "max_new_tokens": 96,
            "sampling_temperature": 1.0,
            "sampler_rows": 8 if smoke else 32,
            # Each completion has a row, so that the longest fit.
            "rows": 8 if smoke else 32,
            "row_length": 128,
            "microbatches": 1 if smoke else 4,
            "too_long": "error",
            "optimizer": _optimizer(smoke),
            "checkpoint_every": 20,
        }
    )
    config.rl_only = rl
    # As in the paper, RL follows a complete distillation.
    config.distill_then_rl = ConfigDict({"method": "sequence", "share": 1.0, "rl_share": 0.6})
    return config


def _training(smoke: bool, epochs: int) -> ConfigDict:
    """SFT on the teacher's responses."""
    return ConfigDict(
        {
            "epochs": epochs,
            "rows": 8,
            "row_length": 128,
            "microbatches": 1,
            "too_long": "error",
            "curriculum": 1,
            "optimizer": _optimizer(smoke),
            "log_every": 20,
            "checkpoint_every": 200,
        }
    )


def _optimizer(smoke: bool) -> ConfigDict:
    return optimizer.get_optimizer(
        "cosine", learning_rate=4e-3, warmup_steps=1 if smoke else 10, final_fraction=0.05, b2=0.95
    )
