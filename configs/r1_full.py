"""DeepSeek-R1's recipe on a published base model, with the paper's hyper-parameters.

    python -m launch.run_r1 --config=configs/r1_full.py:qwen2.5-7b,jsonl:problems.jsonl \
        --workdir=runs/r1_full

SIZE,TASK follow the colon; several tasks are joined by +, and without one it is gsm8k.
`--config.model=DIR` takes any other checkpoint, with the mesh of the size. The stages are those of
the tiny recipe: R1-Zero, cold start from its chains, RL, rejection sampling and SFT, RL. On a pod,
every machine runs this command. An interrupted run goes on by the same command.

With data of your own, each stage can be trained alone, from what the one before has written
(STAGE,SIZE follow the colon):

    python -m launch.run_sft --config=configs/r1_full.py:cold_start,qwen2.5-7b \
        --config.data=cold_start.jsonl --workdir=runs/r1_full/cold_start
    python -m launch.run_rl --config=configs/r1_full.py:reasoning_rl,qwen2.5-7b \
        --config.task=jsonl:problems.jsonl --workdir=runs/r1_full/reasoning_rl
    python -m launch.run_sft --config=configs/r1_full.py:rejection_sft,qwen2.5-7b \
        --config.data=sft_800k.jsonl --workdir=runs/r1_full/rejection_sft
    python -m launch.run_rl --config=configs/r1_full.py:r1_rl,qwen2.5-7b \
        --config.task=jsonl:problems.jsonl --workdir=runs/r1_full/r1_rl

`r1_zero` is the RL without a cold start. The data of the paper are not published: bring your own
(`launch.run_teacher` makes SFT data). Whether a stage fits a machine, without having it:

    python -m launch.run_preflight --config=configs/r1_full.py:reasoning_rl,qwen2.5-7b \
        --topology=v5p:4x4x4

`deepseek-v3` is the paper's own model of 671 billion weights, and for 512 devices of 95 GiB
(--topology=v5p:8x8x8); the Qwens are for 64. None of this has been run here; what to expect at the
end are the paper's figures for its own model, and for Qwen2.5-32B its R1-Zero (AIME 2024 pass@1
47.0). The router's biases stay as they are loaded: whether R1's training balanced the experts'
loads is not published.

Where the numbers are from: DeepSeek-R1 (arXiv:2501.12948v2; Nature 645, 633), Methods and
appendix B.4. Published: SFT for 2 to 3 epochs with 128 sequences of up to 32,768 tokens a step and
a cosine from 5e-5 to 5e-6, both times from the base model; RL with learning rate 3e-6 (2e-6 for
Qwen2.5-32B), KL coefficient 0.001, clip ratio 10, 16 outputs to each of 512 questions, in 16
updates of 512 outputs each, gone through once; a new reference policy every 400 updates;
temperature 1, in the last stage 0.7 for 1,700
steps; accuracy and format rewards of equal weight, language consistency added in R1; R1-Zero
10,400 steps. Not published, and marked so below: optimizer and weight decay, warm-up, clipping of
gradients, length of the prompts, steps of the first RL stage of R1.

What the paper varies within a stage takes two runs here, the second from the first one's `rl/hf`:
R1-Zero's outputs of up to 65,536 tokens from step 8,200 on (--config.max_new_tokens), and the
general data with rewards by preference models in the last 400 steps of `r1_rl`
(--config.rewards=...,helpful?checkpoint=DIR,harmless?checkpoint=DIR).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from configs import rl, sections, sft

SFT_STAGES = ("cold_start", "rejection_sft")
RL_STAGES = ("r1_zero", "reasoning_rl", "r1_rl")
BASES = {
    "qwen2.5-7b": "hf://Qwen/Qwen2.5-7B",
    "qwen2.5-32b": "hf://Qwen/Qwen2.5-32B",
    "deepseek-v3": "hf://deepseek-ai/DeepSeek-V3-Base",
}
# Devices that a recipe is for, and how many of them share a row.
DEVICES = {"qwen2.5-7b": (64, 4), "qwen2.5-32b": (64, 4), "deepseek-v3": (512, 8)}
# From which stage's result RL starts; R1-Zero starts from the base model.
BEFORE = {"reasoning_rl": "cold_start", "r1_rl": "rejection_sft"}
LENGTH = 32_768


# The longest prompt, in tokens; not published.
MAX_PROMPT = 2048


def get_config(arg: str = "qwen2.5-7b") -> ConfigDict:
    first, _, rest = arg.partition(",")
    if first in BASES:
        return _recipe(first, rest or "gsm8k")
    if first not in SFT_STAGES + RL_STAGES or rest not in BASES:
        raise ValueError(
            f"configs/r1_full.py:{arg} is unknown; after the colon comes SIZE,TASK or STAGE,SIZE"
            f" with a size of {', '.join(BASES)}, a task such as gsm8k and a stage of"
            f" {', '.join(SFT_STAGES + RL_STAGES)}"
        )
    return _sft(first, rest) if first in SFT_STAGES else _rl(first, rest)


def _recipe(size: str, tasks: str) -> ConfigDict:
    """The whole recipe, which one command runs.

    How many samples are drawn for the data, and how many are kept, is ours. All stages have one
    template; it asks for the R1 format, which a base model does not know.
    """
    single = _rl("r1_zero", size)
    config = ConfigDict({name: single[name] for name in ("seed", "dtype", "export_dtype", "remat")})
    config.model, config.template = BASES[size], "chat_r1"
    config.mesh, config.sharding = single.mesh, single.sharding
    config.reasoner = "r1"
    config.max_prompt_tokens = MAX_PROMPT
    names = tasks.split("+")
    sampled = {"max_new_tokens": LENGTH, "temperature": 1.0, "sampler_rows": 512, "part": 512}

    def everything() -> ConfigDict:
        # A task may be a file, whose name has a dot.
        return ConfigDict(dict.fromkeys(names, -1), allow_dotted_keys=True)

    def training(stage: str) -> ConfigDict:
        section = _reinforcement(stage, size)
        of_prompt = config.get_ref("max_prompt_tokens")
        section.row_length = section.get_ref("max_new_tokens") + of_prompt
        section.problems = everything()
        return section

    def tuning(stage: str) -> ConfigDict:
        whole = _sft(stage, size)
        kept = ("rows", "row_length", "microbatches", "too_long", "optimizer", "log_every")
        section = ConfigDict({name: whole[name] for name in kept})
        section.epochs = whole.num_epochs
        section.checkpoint_every = whole.checkpoint_every
        section.checkpoint_every_minutes = whole.checkpoint_every_minutes
        return section

    config.r1_zero = training("r1_zero")
    config.cold_start = ConfigDict(
        {
            "problems": everything(),
            # Tasks of a checkpoint have no worked examples.
            "shots": 0,
            "samples": 4,
            **sampled,
            "per_problem": 1,
            "ngram": 10,
            "sft": tuning("cold_start"),
        }
    )
    config.reasoning_rl = training("reasoning_rl")
    config.rejection_sft = ConfigDict(
        {
            "reasoning": {"problems": everything(), "samples": 16, **sampled, "per_problem": 4},
            # Two short lists stand for the paper's 200,000 samples, so all that is kept is used.
            "general": {
                "problems": {"facts": -1, "small_talk": -1},
                "samples": 4,
                **sampled,
                "per_problem": 2,
            },
            "proportion": placeholder(float),
            "ngram": 10,
            "sft": tuning("rejection_sft"),
        }
    )
    config.r1 = ConfigDict(
        {
            # Nobody compares replies here, so rules alone reward.
            "harmless_problems": {},
            "sampling": placeholder(dict),
            "reward_model": placeholder(dict),
            "helpful": placeholder(dict),
            "harmless": placeholder(dict),
            "rl": training("r1_rl"),
        }
    )
    config.evaluation = _evaluation()
    config.evaluation.max_new_tokens = LENGTH
    own: dict[str, str] = {}
    for name in names:
        if (domain := _domain(name)) in own:
            raise ValueError(
                f"tasks {own[domain]!r} and {name!r} would both be reported as {domain!r}: rename"
                " one of the files"
            )
        own[domain] = name
    config.evaluation.tasks = {**own, "facts": "facts", "small_talk": "small_talk"}
    return config


def _domain(task: str) -> str:
    """Names a task's figures: "math" for jsonl:data/math.jsonl?test=FILE, gsm8k for gsm8k."""
    kind, _, rest = task.partition(":")
    name = rest.partition("?")[0].rpartition("/")[2]
    # A config's keys have no dots.
    return (name.rpartition(".")[0] or name or kind).replace(".", "_")


def _sft(stage: str, size: str) -> ConfigDict:
    config = sft.get_config()
    config.model = BASES[size]
    count, to_a_row = DEVICES[size]
    config.mesh.update(data=1, fsdp=-1, tensor=to_a_row)
    config.num_epochs = 2
    config.rows, config.row_length = 128, LENGTH
    # One row at a time on each data shard.
    config.microbatches = 128 * to_a_row // count
    config.too_long = "drop"
    config.optimizer.update(learning_rate=5e-5, schedule="cosine", final_fraction=0.1)
    # Not published: AdamW with these settings is DeepSeek-V3's, without its weight decay.
    config.optimizer.update(b2=0.95, clip_norm=1.0, weight_decay=0.0, warmup_steps=0)
    config.checkpoint_every = 100 if stage == "cold_start" else 500
    config.checkpoint_every_minutes = 15.0
    config.evaluation.max_new_tokens = LENGTH
    # A base model is taught its chat template by the data.
    config.template = "chat"
    return config


def _reinforcement(stage: str, size: str) -> ConfigDict:
    config = rl.get_section()
    count, to_a_row = DEVICES[size]
    config.loss.update(beta=0.001, clip_low=10.0, clip_high=10.0)
    rewards = "accuracy=1,format=1"
    config.rewards = rewards if stage == "r1_zero" else rewards + ",language=1"
    config.reward_workers = 16
    config.prompts, config.group = 512, 16
    config.minibatches, config.epochs = 16, 1
    config.reference_every = 400
    config.max_new_tokens = LENGTH
    config.temperature = 0.7 if stage == "r1_rl" else 1.0
    config.sampler_rows = 512
    # A row for each completion, one at a time on each data shard.
    config.microbatches, config.rows = 512 * to_a_row // count, 512
    # Not published for the first RL stage of R1, for which R1-Zero's number is an upper bound.
    config.steps = 1700 if stage == "r1_rl" else 10_400
    zero_32b = stage == "r1_zero" and size == "qwen2.5-32b"
    config.optimizer.update(learning_rate=2e-6 if zero_32b else 3e-6)
    # Not published.
    config.optimizer.update(schedule="constant", b2=0.95, weight_decay=0.0, clip_norm=1.0)
    config.sample_every, config.checkpoint_every = 16, 160
    config.checkpoint_every_minutes = 15.0
    return config


def _evaluation() -> ConfigDict:
    """As the paper evaluates, D.1."""
    return ConfigDict(
        {
            "problems": placeholder(int),
            "temperature": 0.6,
            "top_p": 0.95,
            "samples": 4,
            "rows": 512,
        }
    )


def _rl(stage: str, size: str) -> ConfigDict:
    config = _reinforcement(stage, size)
    config.seed, config.dtype, config.remat = 0, "auto", "full"
    # The dtype of exported weights: "auto" keeps that of the checkpoint.
    config.export_dtype = "auto"
    before = BEFORE.get(stage)
    config.model = f"runs/r1_full/{before}/sft/hf" if before else BASES[size]
    config.template = "chat" if before else "r1_zero"
    # Yours; a published data set stands for it.
    config.task, config.problems = "gsm8k", placeholder(int)
    _, to_a_row = DEVICES[size]
    config.mesh = sections.get_mesh(to_a_row)
    # Entries of the table in `models/sharding.py` to be otherwise: logical axis -> mesh axes.
    config.sharding = ConfigDict()
    config.max_prompt_tokens = MAX_PROMPT
    config.row_length = config.get_ref("max_prompt_tokens") + config.get_ref("max_new_tokens")
    config.evaluate_every = 400
    config.evaluation = _evaluation()
    config.evaluation.problems_during = 256
    config.evaluation.tasks = {"math": FieldReference(config.get_ref("task"))}
    config.evaluation.max_new_tokens = FieldReference(config.get_ref("max_new_tokens"))
    return config
