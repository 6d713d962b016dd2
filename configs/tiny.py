"""The whole tiny world: a base model from scratch, R1-Zero, R1 and a student, on two CPU cores.

    python -m launch.run_r1 --config=configs/tiny.py --workdir=runs/tiny

`--config=configs/tiny.py:smoke` runs the same code in under a minute, for tests. Its model is too
small to learn anything. `:dial` is for a model whose thinking can be dialled: the corpus has chains
of all lengths, and R1-Zero is rewarded for keeping a budget that the question names, or for leaving
out the chain; docs/router.md has two trained models. `:countdown` compares search methods where a
search can prune; `:countdown_smoke` is its small form for tests.

    python -m launch.run_r1 --config=configs/tiny.py:countdown --workdir=runs/countdown \
        --stages=base,verifiers,search
"""

from ml_collections import ConfigDict

from configs import optimizer, rl, tiny_student

ARGUMENTS = ("", "smoke", "search", "dial", "countdown", "countdown_smoke")
# Half of the problems of `:dial` name no budget, the others one of these; 0 asks for no chain, and
# 96 is all that a response may have.
BUDGETS = (0, 24, 40, 96)
COUNTDOWN = "tiny_countdown"


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/tiny.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    smoke = arg in ("smoke", "countdown_smoke")
    config = ConfigDict()
    config.seed = 0
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    # Entries that replace those of the table in `models/sharding.py`: logical axis -> mesh axes.
    config.sharding = ConfigDict()
    config.template = "plain"

    config.tokenizer = ConfigDict({"vocab_size": 768, "documents": 5000})
    config.model = ConfigDict(
        {
            "family": "qwen3",
            "vocab_size": 768,
            "embed_dim": 32 if smoke else 128,
            "num_layers": 2 if smoke else 4,
            "num_heads": 4,
            "num_kv_heads": 1,
            "head_dim": 8 if smoke else 32,
            "mlp_dim": 64 if smoke else 384,
            "qk_norm": True,
            "tie_embeddings": True,
            "max_length": 512,
            "scan_unroll": 2 if smoke else 4,
            "dtype": "float32",
        }
    )

    config.pretrain = _pretrain(smoke)

    reasoning = {"tiny_math": 2048, "tiny_logic": 1280, "tiny_code": 1280}
    # A reward of weight 0 is only logged.
    only = "tiny_math+tiny_logic+tiny_code"
    verified = f"accuracy?require_format=true&tasks={only},format=0.2"
    # RL also sees a few other questions, for which only the format is rewarded.
    others = {"tiny_knowledge": 128, "tiny_chat": 64}
    config.r1_zero = _rl(smoke, reasoning | others, f"{verified},language=0,self_check=0", 150)

    if arg == "dial":
        config.pretrain.varied = 0.5
        dialled = {task: count // 2 for task, count in reasoning.items()}
        for budget in BUDGETS:
            for task, count in reasoning.items():
                dialled[f"{task}?budget={budget}"] = count // (2 * len(BUDGETS))
        # Facts and small talk are what a question without a chain is for.
        for task, count in others.items():
            dialled |= {task: count, f"{task}?budget=0": count}
        config.r1_zero.problems = dialled
        # `budget` pays for accuracy, also where no budget is named; `accuracy` is only logged.
        answered = "+".join([only, *others])
        config.r1_zero.rewards = (
            f"budget?require_format=true&slope=16&tasks={answered},accuracy?require_format=true"
            f"&weight=0&tasks={only},format=0.2,language=0,self_check=0"
        )
        # The question has room for a budget.
        config.r1_zero.row_length = 176

    config.cold_start = ConfigDict(
        {
            "problems": {"tiny_math": 300, "tiny_logic": 300, "tiny_code": 300},
            # Worked examples in the prompt. There are none, because a page of the corpus has one
            # problem: a model that has never seen two problems on a page does not learn from them.
            "shots": 0,
            **_sampling(smoke, samples=4),
            # At most this many samples are kept per problem. Samples that share this many
            # consecutive words with a question of the evaluation are dropped.
            "per_problem": 2,
            "ngram": 13,
            "sft": _sft(smoke),
        }
    )
    config.reasoning_rl = _rl(smoke, reasoning, f"{verified},language=0.2,self_check=0", 50)

    config.rejection_sft = ConfigDict(
        {
            "reasoning": {
                "problems": {"tiny_math": 800, "tiny_logic": 800, "tiny_code": 800},
                **_sampling(smoke, samples=4),
                "per_problem": 2,
            },
            "general": {
                "problems": {"tiny_knowledge": 130, "tiny_chat": 64},
                **_sampling(smoke, samples=16),
                "per_problem": 4,
            },
            "ngram": 13,
            "sft": _sft(smoke),
        }
    )

    config.r1 = ConfigDict(
        {
            "harmless_problems": {"tiny_math": 50, "tiny_logic": 50, "tiny_code": 50},
            "sampling": _sampling(smoke, samples=8),
            "reward_model": _sft(smoke),
            # The two reward models: their weights, and the tasks that they judge.
            "helpful": {"weight": 1.0, "tasks": "tiny_chat"},
            "harmless": {"weight": 0.2},
            "rl": _rl(
                smoke,
                # There are few greetings, but one problem in eight shall be one.
                {"tiny_math": 160, "tiny_logic": 160, "tiny_code": 112, "tiny_chat": 64},
                {
                    "accuracy": {"weight": 1.0, "require_format": True, "tasks": only},
                    "format": 0.2,
                    "language": {"weight": 0.2, "tasks": only},
                    "self_check": 0.0,
                },
                50,
            ),
        }
    )

    # `:search` is the full comparison of `launch.run_search`; its verifiers see more problems.
    full = arg == "search"
    levels = {8: 2400, 9: 9600} if full else {8: 12, 9: 12} if smoke else {8: 200, 9: 600}
    config.verifiers = ConfigDict(
        {
            "problems": {f"tiny_math?low={n}&high={n}": count for n, count in levels.items()},
            "solutions": 2 if smoke or full else 3,
            "completions": 2 if smoke or full else 4,
            "max_new_tokens": 112,
            # Solutions are sampled hotter than in the search, so that they contain more kinds of
            # errors; completions of their steps are sampled as in the search.
            "temperature": 1.0,
            "completion_temperature": 0.7,
            "delimiter": "\n",
            "chunk": 128,
            "sampler_rows": 64 if smoke else 512,
            "outcome_at": "last",
            # RL has not seen sums with this many terms. The verifiers learn to judge them better if
            # they also learn to write them.
            "language_share": 3.5,
            "bench_problems": 8 if smoke else 200,
            "rows": 8,
            "row_length": 192,
            "epochs": 1 if smoke else 3,
            "optimizer": optimizer.get_optimizer(
                "cosine",
                learning_rate=3e-3,
                warmup_steps=1 if smoke else 20,
                b2=0.95,
                weight_decay=0.01,
            ),
            "checkpoint_every": 200,
            "log_every": 10,
        }
    )

    # R1-Zero searches on sums with two more terms than RL has seen.
    config.search = ConfigDict(
        {
            "task": "tiny_math?low=9&high=9",
            "problems": 16 if smoke else 500,
            "calibration": 16 if smoke else 400 if full else 200,
            "budgets": (1, 2, 4, 8, 16, 32, 64) if full else (1, 4) if smoke else (1, 4, 16),
            "tree_arms": (4, 16) if full else (4,),
            "pilots": 2,
            "aggregation": "last",
            "wait": "wait",
            "shots": 2,
            "max_new_tokens": 112,
            "step_tokens": 16,
            "typical_tokens": 69,
            "temperature": 0.7,
            "rows": 64 if smoke else 512,
        }
    )

    config.distill = tiny_student.get_section(
        smoke,
        _pretrain(smoke),
        _reinforcement(smoke, f"{verified},language=0,self_check=0", 100),
        reasoning,
    )

    config.evaluation = ConfigDict(
        {
            "tasks": {"math": "tiny_math", "logic": "tiny_logic", "code": "tiny_code",
                      "knowledge": "tiny_knowledge", "chat": "tiny_chat"},
            "problems": 16 if smoke else 200,
            "samples": 1 if smoke else 2,
            "rows": 64 if smoke else 200,
            "max_new_tokens": 96,
            "temperature": 1.0,
            "top_p": 1.0,
            "votes": {"stages": ("r1_zero",), "domains": ("math", "logic"),
                      "samples": 4 if smoke else 64},
        }
    )  # fmt: skip
    if arg.startswith("countdown"):
        _countdown(config, smoke)
    return config


def _countdown(config: ConfigDict, smoke: bool) -> None:
    """Changes a config to a world of countdown alone, in place.

    The base model is the reasoner. Its corpus has wrong steps enough that its samples differ, so
    that a search has something to gain. There is no RL before it.
    """
    config.reasoner = "base"
    # The chain is open, so the first step of a search is the first operation.
    config.template = "think"
    config.pretrain.corpus = config.distill.base.pretrain.corpus = "countdown"
    config.pretrain.documents = 1000 if smoke else 60_000

    # Four numbers: the base model solves few of these in one attempt (docs/results.md), and with
    # five it solves fewer still.
    task = f"{COUNTDOWN}?low=4&high=4"
    config.verifiers.problems = {task: 24 if smoke else 4000}
    config.verifiers.solutions, config.verifiers.completions = 2, 4
    config.verifiers.max_new_tokens = 96

    config.search.task = task
    config.search.problems = 16 if smoke else 300
    config.search.calibration = 16 if smoke else 60
    config.search.budgets = (1, 4) if smoke else (1, 2, 4, 8, 16, 32)
    config.search.max_new_tokens, config.search.step_tokens = 96, 32
    config.search.typical_tokens = 70
    config.search.temperature = 1.0

    config.evaluation.tasks = {"countdown": COUNTDOWN}
    config.evaluation.votes.domains = ("countdown",)

    # The other stages are not part of the comparison, but they run on the same problems.
    rewards = f"accuracy?require_format=true&tasks={COUNTDOWN},format=0.2"
    for section in (config.r1_zero, config.reasoning_rl, config.r1.rl):
        section.problems = {COUNTDOWN: 64 if smoke else 2048}
    for section in (config.r1_zero, config.reasoning_rl, config.distill.rl_only):
        section.rewards = rewards
    config.r1.rl.rewards = {"accuracy": {"weight": 1.0, "require_format": True}, "format": 0.2}
    config.cold_start.problems = {COUNTDOWN: 32 if smoke else 900}
    config.rejection_sft.reasoning.problems = {COUNTDOWN: 32 if smoke else 2400}
    config.rejection_sft.general = config.r1.helpful = config.r1.harmless = None
    config.r1.harmless_problems = {}
    config.distill.problems = {COUNTDOWN: 64 if smoke else 2048}


def _pretrain(smoke: bool) -> ConfigDict:
    """Settings of next-token prediction from scratch."""
    return ConfigDict(
        {
            "documents": 2000 if smoke else 48_000,
            # Chains that are empty, stopped early, or checked at their end.
            "varied": 0.0,
            "rows": 16,
            "row_length": 128,
            # docs/results.md compares it with AdamW.
            "optimizer": optimizer.get_optimizer(
                "cosine",
                name="muon",
                learning_rate=3e-3,
                warmup_steps=5 if smoke else 50,
                final_fraction=0.05,
                b2=0.95,
                weight_decay=0.1,
            ),
            "log_every": 10,
            "checkpoint_every": 200,
        }
    )


def _rl(smoke: bool, problems: dict, rewards: str | dict, steps: int) -> ConfigDict:
    """Settings of an RL stage, with the number of training problems by task."""
    config = _reinforcement(smoke, rewards, steps)
    config.problems = problems
    return config


def _reinforcement(smoke: bool, rewards: str | dict, steps: int) -> ConfigDict:
    """Settings of an RL training."""
    config = rl.get_section(rewards)
    config.variant = "dr_grpo"
    config.reward_workers = 1
    config.steps = 3 if smoke else steps
    config.prompts, config.group = (8, 4) if smoke else (32, 8)
    config.max_new_tokens = 96
    config.sampler_rows = 32 if smoke else 128
    config.minibatches, config.epochs, config.recompute_old = 1, 1, False
    config.rows, config.microbatches = (96, 6) if smoke else (192, 12)
    config.row_length = 160
    config.optimizer = optimizer.get_optimizer(
        "cosine", learning_rate=3e-4, warmup_steps=1 if smoke else 5, b2=0.95
    )
    config.sample_every, config.checkpoint_every = 10, 20
    return config


def _sampling(smoke: bool, samples: int) -> dict:
    """Settings of what is sampled to be trained on."""
    return {
        "samples": samples,
        "max_new_tokens": 96,
        "temperature": 1.0,
        "sampler_rows": 32 if smoke else 128,
    }


def _sft(smoke: bool) -> dict:
    """Settings of a training on samples, twice through."""
    return {
        "rows": 8,
        "row_length": 320,
        "epochs": 2,
        "optimizer": optimizer.get_optimizer(
            "cosine",
            learning_rate=1e-3,
            warmup_steps=1 if smoke else 5,
            final_fraction=0.1,
            b2=0.95,
        ),
        "log_every": 5,
        "checkpoint_every": 100,
    }
