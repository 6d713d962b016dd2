"""The six R1-Distill students, by supervised fine-tuning on a teacher's chains of thought.

    python -m launch.run_sft --config=configs/distill_full.py:qwen2.5-math-7b \
        --config.data=r1_800k.jsonl --workdir=runs/distill_full

The paper's 800,000 samples (600,000 of reasoning, 200,000 of other kinds) are not published;
`launch.run_teacher` makes such data from any teacher. Nothing of this size has been run here. What
to expect is the paper's table 15 (arXiv:2501.12948v2), pass@1 in percent:

    student                 model                           learning rate   AIME 2024   MATH-500
    qwen2.5-math-1.5b       DeepSeek-R1-Distill-Qwen-1.5B   1e-4            28.9        83.9
    qwen2.5-math-7b         DeepSeek-R1-Distill-Qwen-7B     8e-5            55.5        92.8
    qwen2.5-14b             DeepSeek-R1-Distill-Qwen-14B    7e-5            69.7        93.9
    qwen2.5-32b             DeepSeek-R1-Distill-Qwen-32B    6e-5            72.6        94.3
    llama-3.1-8b            DeepSeek-R1-Distill-Llama-8B    5e-5            50.4        89.1
    llama-3.3-70b-instruct  DeepSeek-R1-Distill-Llama-70B   2e-5            70.0        94.5

Published in appendix B.4.3: these learning rates, a cosine to a tenth of them, 2 to 3 epochs, 64
sequences of up to 32,768 tokens a step. Not published: optimizer, weight decay, warm-up, clipping
of gradients. The students of Qwen2.5-Math were trained far beyond their context of 4,096 tokens,
and keep their rotary base.

Whether a student fits a machine, without having it:

    python -m launch.run_preflight --config=configs/distill_full.py:qwen2.5-32b \
        --topology=v5p:4x4x4
"""

from ml_collections import ConfigDict

from configs import sft

# Student -> its weights and its initial learning rate (table 6).
STUDENTS = {
    "qwen2.5-math-1.5b": ("hf://Qwen/Qwen2.5-Math-1.5B", 1e-4),
    "qwen2.5-math-7b": ("hf://Qwen/Qwen2.5-Math-7B", 8e-5),
    "qwen2.5-14b": ("hf://Qwen/Qwen2.5-14B", 7e-5),
    "qwen2.5-32b": ("hf://Qwen/Qwen2.5-32B", 6e-5),
    "llama-3.1-8b": ("hf://meta-llama/Llama-3.1-8B", 5e-5),
    "llama-3.3-70b-instruct": ("hf://meta-llama/Llama-3.3-70B-Instruct", 2e-5),
}
LENGTH = 32_768
# Devices that share a row: they must divide the number of key heads; the smallest student has two,
# and lie along axes of the machine, here of four.
SHARED_BY = 4
WHOLE = ("qwen2.5-math-1.5b",)


def get_config(arg: str = "qwen2.5-math-7b") -> ConfigDict:
    if arg not in STUDENTS:
        raise ValueError(
            f"configs/distill_full.py:{arg} is unknown; after the colon comes one of"
            f" {', '.join(STUDENTS)}"
        )
    config = sft.get_config()
    config.model, learning_rate = STUDENTS[arg]
    tensor = 1 if arg in WHOLE else SHARED_BY
    config.mesh.update(data=1, fsdp=-1, tensor=tensor)
    config.num_epochs = 2
    config.rows, config.row_length = 64, LENGTH
    # One row at a time on each data shard of 64 devices.
    config.microbatches = tensor
    config.too_long = "drop"
    config.optimizer.update(learning_rate=learning_rate, schedule="cosine", final_fraction=0.1)
    # Not published.
    config.optimizer.update(b2=0.95, clip_norm=1.0, weight_decay=0.0, warmup_steps=0)
    config.checkpoint_every = 500
    config.template = "chat"
    # The students of Qwen2.5-Math have a context of 4,096 tokens.
    config.beyond_context = "math" in arg
    # As the paper evaluates, D.1.
    config.evaluation.update(max_new_tokens=LENGTH, temperature=0.6, top_p=0.95, samples=4)
    return config
