"""Chains of thought from a teacher, verified and filtered, as training data for a student.

    TEACHER_KEY=... python -m launch.run_teacher --config=configs/teacher.py \
        --config.task=gsm8k --config.teacher.server=https://api.deepseek.com \
        --config.teacher.model=deepseek-reasoner --config.teacher.api_key_env=TEACHER_KEY \
        --config.teacher.prices=prices.json --config.teacher.max_cost=20 --workdir=runs/teacher

asks any server with OpenAI's interface; `--config.teacher.checkpoint=MODEL` asks a model on this
machine instead: DIR, hf://org/name, gguf:FILE or pip:PACKAGE. `prices.json` holds prices per
million tokens, which you copy from the vendor's list:
`{"deepseek-reasoner": {"prompt": ..., "completion": ...}}`. `--estimate_only` prints the estimated
cost and stops. `launch.run_sft` trains on the result, `data.jsonl`.

`configs/teacher.py:tags` asks a model that is no reasoner by itself for the R1 format.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

ARGUMENTS = ("", "tags")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/teacher.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    tags = arg == "tags"
    config = ConfigDict()
    config.seed = 0
    # Problems with answers, by a task; or prompts alone, where only the form is checked.
    config.task = ""
    config.prompts = ""
    # How many, drawn at random; None is all.
    config.problems = placeholder(int)
    # chat sends the question alone, chat_r1 with a request for the R1 format before it; plain and
    # r1_zero send text to be continued.
    config.template = "chat_r1" if tags else "chat"
    # What a response must look like: tags (the R1 format), think (a chain in think tags, then an
    # answer; as reasoning models give it), any.
    config.form = "tags" if tags else "think"

    # DeepSeek-R1 (arXiv:2501.12948, 2.3.3) samples several responses a prompt; temperature and
    # top-p are those it recommends.
    config.num_samples = 4
    config.max_new_tokens = 32_768
    config.temperature = 0.6
    config.top_p = 0.95

    config.teacher = ConfigDict(
        {
            # A server, and what it calls the model.
            "server": "",
            "model": "",
            # The environment variable that holds its key; "" sends none.
            "api_key_env": "",
            # Prices per million tokens (JSON), and what may be spent at most; None is no limit.
            "prices": "",
            "max_cost": placeholder(float),
            "requests_per_minute": placeholder(int),
            "tokens_per_minute": placeholder(int),
            "concurrency": 32,
            # Of one attempt at a request, in seconds, and how many attempts.
            "timeout_s": 1800.0,
            "attempts": 6,
            # Or a checkpoint, and how many sequences it samples at a time.
            "checkpoint": "",
            "rows": 128,
        }
    )
    return config
