"""Distillation in the tiny world: R1-Zero's reasoning in a student of a quarter of its size.

    python -m launch.run_distill --config=configs/tiny_distill.py --workdir=runs/tiny_distill \
        --config.teacher=runs/tiny/seed_{seed}/r1_zero/hf

The student is a base model of the same corpus. From there it is taught by each method, or learns by
RL alone, at about the same cost in FLOPs. `--config=configs/tiny_distill.py:smoke` is the same path
in under a minute, for tests.
"""

from ml_collections import ConfigDict

from configs import distill, tiny

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/tiny_distill.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    smoke = arg == "smoke"
    whole = tiny.get_config(arg)
    config = distill.get_config()
    for name in ("seed", "mesh", "template", "evaluation"):
        config[name] = whole[name]
    config.dtype, config.remat = "float32", "none"
    config.teacher = "runs/tiny/seed_{seed}/r1_zero/hf"
    config.methods = ("rl_only", "sequence", "logit", "on_policy", "distill_then_rl")
    config.problems = whole.r1_zero.problems

    # The student is made here: a base model from scratch.
    config.student = ""
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
            "pretrain": whole.pretrain,
        }
    )

    config.data = ConfigDict(
        {
            "responses": "",
            "samples": 1,
            "form": "tags",
            "max_new_tokens": 96,
            "temperature": 1.0,
            "sampler_rows": 32 if smoke else 128,
        }
    )
    optimizer = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "warmup_steps": 1 if smoke else 10,
        "final_fraction": 0.05,
        "b2": 0.95,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
    }
    config.sequence = ConfigDict(
        {
            "epochs": 1 if smoke else 3,
            "rows": 8,
            "row_length": 128,
            "microbatches": 1,
            "too_long": "error",
            "optimizer": optimizer,
            "log_every": 20,
            "checkpoint_every": 200,
        }
    )
    config.logit = ConfigDict(config.sequence.to_dict() | {"beta": 0.0, "temperature": 1.0})
    config.logit.epochs = 1 if smoke else 2
    config.on_policy = ConfigDict(
        {
            "beta": 0.5,
            "temperature": 1.0,
            "on_policy_share": 1.0,
            "steps": 2 if smoke else 120,
            "prompts": 8 if smoke else 32,
            "group": 1,
            "max_new_tokens": 96,
            "sampling_temperature": 1.0,
            "sampler_rows": 8 if smoke else 32,
            # A row for each completion, so that the longest fit.
            "rows": 8 if smoke else 32,
            "row_length": 128,
            "microbatches": 1 if smoke else 4,
            "optimizer": optimizer,
            "checkpoint_every": 20,
        }
    )
    config.rl_only = whole.r1_zero
    config.distill_then_rl = ConfigDict({"method": "sequence", "share": 0.5})
    return config
