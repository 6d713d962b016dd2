"""Distillation of a reasoner into a smaller model, both in Hugging Face layout.

    python -m launch.run_distill --config=configs/distill.py --config.teacher=DIR_OR_HF_NAME \
        --config.student=DIR_OR_HF_NAME --workdir=runs/distill

Any Llama 3, Qwen2/2.5 or Qwen3 checkpoint may teach any other by what it writes (`sequence`, the
default, as DeepSeek-R1-Distill was made). `--config.methods="('logit',)"` and `on_policy` compare
distributions over tokens: they need models of one vocabulary. Other things to set:

    --config.data.responses=FILE    your own responses (or A.jsonl=3,B.jsonl=1, a mixture), as
                                    `launch.run_teacher` collects them from a server; `sequence`
                                    then needs no checkpoint of the teacher
    --config.lora.rank=16           train adapters; what is exported is merged

Settings of `sequence` are those published for R1-Distill as far as there are any (2 to 3 epochs;
arXiv:2501.12948, B.4.3). Hardware and time: unmeasured. `configs/tiny_distill.py` is for two CPU
cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from configs import optimizer, rl, sections

MAX_PROMPT, MAX_NEW = 512, 3584


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    # {seed} is that of the run. Without a teacher, `data.responses` is all there is of it.
    config.teacher = "hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    config.student = "hf://Qwen/Qwen2.5-1.5B"
    # "auto" is bfloat16 on accelerators and float32 on CPU; the student's weights and optimizer
    # are float32.
    config.dtype = "auto"
    # Of exported weights: "auto" is that of the checkpoint they came from.
    config.export_dtype = "auto"
    config.remat = "full"
    config.mesh = sections.get_mesh()
    # Entries of the table in `models/sharding.py` to be otherwise: logical axis -> mesh axes.
    config.sharding = ConfigDict()
    config.template = "chat"

    # Names of arms: rl_only, sequence, ...; see `launch.jobs.distillation.arms`.
    config.methods = ("sequence",)
    # Training problems, drawn at random; None is all. Or several tasks, with how many of each.
    config.task = "gsm8k"
    config.num_problems = placeholder(int)
    config.problems = ConfigDict()

    # What the teacher is asked, and which form its responses must have; see `configs/teacher.py`.
    config.data = ConfigDict(
        {
            "responses": "",
            # Leaves out records that share this many words in a row with the evaluation.
            "ngram": 13,
            "samples": 4,
            "form": "think",
            "max_new_tokens": MAX_NEW,
            "temperature": 0.6,
            "sampler_rows": 256,
        }
    )
    config.sequence = _training()
    # `beta` is 0 for forward KL, 1 for reverse KL; see `train/objectives/distillation.py`. The
    # `top_k` likeliest tokens of the teacher are stored once; None computes its whole distribution
    # at every step.
    config.logit = _training()
    config.logit.update(beta=0.0, temperature=1.0)
    config.logit.top_k = placeholder(int)
    config.on_policy = ConfigDict(
        {
            "beta": 0.5,
            "temperature": 1.0,
            # Of the batches; the others are of the teacher's responses (lambda of GKD).
            "on_policy_share": 1.0,
            # The share of sequence's training that comes first; 0 starts cold.
            "warm_start": 0.0,
            "steps": 200,
            "prompts": 64,
            "group": 1,
            "max_new_tokens": MAX_NEW,
            "sampling_temperature": 1.0,
            "sampler_rows": 64,
            "rows": 64,
            "row_length": MAX_PROMPT + MAX_NEW,
            "microbatches": 8,
            "too_long": "drop",
            "optimizer": _optimizer(),
            "checkpoint_every": 50,
        }
    )
    config.rl_only = rl.get_section()
    # The share of the method's training that comes first, and of RL's that follows.
    config.distill_then_rl = ConfigDict({"method": "sequence", "share": 0.5, "rl_share": 0.5})
    config.lora = sections.get_lora()

    config.evaluation = ConfigDict(
        {
            "tasks": {"math": FieldReference(config.get_ref("task"))},
            "problems": placeholder(int),
            "samples": 1,
            "max_new_tokens": MAX_NEW,
            "temperature": 0.6,
            "top_p": 1.0,
            "rows": 256,
        }
    )
    return config


def _training() -> ConfigDict:
    """SFT on the teacher's responses."""
    return ConfigDict(
        {
            "epochs": 2,
            "rows": 32,
            "row_length": MAX_PROMPT + MAX_NEW,
            "microbatches": 4,
            # Examples longer than a row: error, truncate or drop.
            "too_long": "drop",
            # Stages of ever longer examples in each epoch; 1 shuffles all.
            "curriculum": 1,
            "optimizer": _optimizer(),
            "log_every": 10,
            "checkpoint_every": 100,
        }
    )


def _optimizer() -> ConfigDict:
    return optimizer.get_optimizer(
        "cosine", learning_rate=1e-5, warmup_steps=20, final_fraction=0.1, b2=0.95
    )
