"""Supervised fine-tuning of any model that `models.checkpoint` opens.

    python -m launch.run_sft --config=configs/sft.py --config.model=MODEL \
        --config.data=FILE.jsonl --workdir=runs/sft

`workdir` gets report.json and the folders `initial` and `sft` (see `launch/parts/stages.py`); `sft/hf` is
the trained model. A run that was interrupted goes on where it was, by the same command.
"""

from absl import flags
from ml_collections import config_flags

from configs.sft import get_config
from launch.parts import runtime


def main(argv):
    del argv
    run(_CONFIG.value, _WORKDIR.value)


def run(config, workdir: str) -> None:
    """The whole job; see the module's docstring."""
    # JAX starts here, once XLA's flags are set.
    from launch.jobs import finetune

    finetune.run(config, get_config(), workdir, "sft", _prepare)


def _prepare(work):
    """Reads and checks the data; returns the training."""
    from launch.jobs import training
    from train.data import load_examples

    config = work.config
    if not config.data:
        raise ValueError("there are no data: give a JSONL file by --config.data=FILE")
    plan = training.plan_supervised(
        work,
        load_examples(config.data, work.tokenizer),
        config,
        epochs=config.num_epochs,
        microbatches=config.microbatches,
        too_long=config.too_long,
    )
    return lambda params, directory: training.fine_tune(work, params, plan, directory)


if __name__ == "__main__":
    # Here, so that a program may import several entry points: flags are global.
    _CONFIG = config_flags.DEFINE_config_file("config", "configs/sft.py", "the recipe")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/sft", "where everything is written")
    runtime.run_main(main)
