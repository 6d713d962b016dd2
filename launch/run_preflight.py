r"""Predicts what a recipe needs on a machine that you lack: memory, time and chip-hours.

    python -m launch.run_preflight --config=configs/r1_full.py:cold_start,qwen2.5-7b \
        --topology=v5p:4x4x4 --output=fits.json

The program compiles everything that the job runs, with abstract arrays, for a TPU topology: the
train step, and for RL the pass for log-probabilities, the weights for sampling and the sampler.
`pip install 'jax[tpu]'` brings the compiler; no TPU is needed. `--topology=cpu:8` compiles for 8
virtual CPU devices, which checks the shardings. A program takes one to several minutes on two
cores.

What it prints is a prediction. Memory is what the compiler says. Times are lower bounds:
operations, traffic and messages are counted in the compiled programs, and divided by the published
speeds of the machine. Exit code 1 says that the job does not fit.

`--shipped` checks all full-scale recipes of `configs/` instead, each on the machine that it is for;
`--output` is the file that gets the figures, which `docs/preflight.md` shows. Recipes that the file
has already are left out.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from launch.parts import runtime
from launch.parts.endings import FAILED
from launch.schema.rl import RlConfig
from launch.schema.supervised import SftConfig


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    from launch.preflight import machines, shipped
    from launch.preflight.check import check

    output = Path(_OUTPUT.value).expanduser().resolve() if _OUTPUT.value else None
    if _SHIPPED.value:
        if output is None:
            raise ValueError("--shipped needs --output=FILE.json")
        shipped.check_all(output)
        return
    topology = _TOPOLOGY.value
    if _CONFIG.value is not None and "r1_zero" in _CONFIG.value:
        raise ValueError(
            "--config is a whole recipe of run_r1: check its stages one at a time, such as"
            " configs/r1_full.py:reasoning_rl,qwen2.5-7b and"
            " configs/r1_full.py:cold_start,qwen2.5-7b (of another checkpoint by --model)"
        )
    config = runtime.read_config(_CONFIG, _recipe_of(_CONFIG.value))
    machines.prepare(topology)
    row = check(
        config, topology, _MODEL.value or _model_of(config.model), _RESPONSE_TOKENS.value,
        told=lambda line: print(line, file=sys.stderr, flush=True),
        texts=Path(_TEXTS.value).expanduser().resolve() if _TEXTS.value else None,
    )  # fmt: skip
    tell(row, output)


def tell(row: Mapping[str, Any], output: Path | None) -> None:
    """Prints what `check` found and writes it; leaves with code 1 if the job does not fit."""
    from launch.parts.report import write_report
    from launch.preflight.report import print_report

    print_report(row)
    if output is not None:
        write_report(output, row)
    if row["fits"] is False:
        sys.exit(FAILED)


def _model_of(model: str) -> str:
    """Returns the config's model, or the size that the config's argument names.

    The model of a later stage is the folder of an earlier one, which is not there before a run.
    """
    from models.named_configs import NAMED_CONFIGS

    if ":" in model or Path(model).expanduser().exists():
        return model
    argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[2]
    return next((part for part in argument.split(",") if part in NAMED_CONFIGS), model)


def _recipe_of(config) -> type[RlConfig] | type[SftConfig]:
    """Returns the schema of a config of `run_sft` or `run_rl`."""
    return SftConfig if config is not None and "num_epochs" in config else RlConfig


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _CONFIG = runtime.define_config("", "a recipe of run_sft or run_rl")
    _TOPOLOGY = flags.DEFINE_string("topology", "v5p:4x4x4", "a TPU topology, or cpu:DEVICES")
    _MODEL = flags.DEFINE_string("model", None, "a size or checkpoint instead of config.model")
    _RESPONSE_TOKENS = flags.DEFINE_integer(
        "response_tokens", None, "expected tokens of a response; the longest by default",
        lower_bound=1,
    )  # fmt: skip
    _SHIPPED = flags.DEFINE_bool("shipped", False, "check all full-scale recipes instead")
    _TEXTS = flags.DEFINE_string("texts", None, "a folder for the text of the compiled programs")
    _OUTPUT = flags.DEFINE_string("output", None, "a JSON file for the result")
    runtime.run_main(main, RlConfig, SftConfig)
