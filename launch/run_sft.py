"""Supervised fine-tuning of any model that `models.checkpoint` opens.

    python -m launch.run_sft --config=configs/sft.py --config.model=MODEL \
        --config.data=FILE.jsonl --workdir=runs/sft

`workdir` gets report.json and the folders `initial` and `sft` (see `launch/parts/stages.py`);
`sft/hf` is the trained model. A run that was interrupted goes on where it was, by the same command.
"""

from collections.abc import Sequence

from absl import flags

from launch import schema
from launch.parts import runtime
from launch.schema.supervised import SftConfig


def main(argv):
    del argv
    run(runtime.read_config(_CONFIG, SftConfig), _WORKDIR.value, _ACCEPT_STOPPED.value)


def run(config, workdir: str, accept_stopped: Sequence[str] = ()) -> None:
    """The whole job; see the module's docstring."""
    config = schema.load(SftConfig, config)
    if not config.data:
        raise ValueError("there are no data: give a JSONL file by --config.data=FILE")
    # JAX starts here, once XLA's flags are set.
    from launch.jobs import finetune

    finetune.run(config, workdir, "sft", _prepare, accept_stopped)


def _prepare(work):
    """Reads and checks the data; returns the training."""
    from launch.jobs import finetune, training
    from launch.parts import data_files
    from train.data import load_examples

    config = work.config
    context = work.model.config.max_length
    if config.row_length > context and not config.beyond_context:
        raise ValueError(
            f"config.row_length={config.row_length} exceeds the model's context of {context}"
            f" tokens: set it to {context}, or --config.beyond_context to train positions that the"
            " model has not seen"
        )
    sha256 = data_files.fingerprints([config.task], [config.data])
    plan = training.plan_supervised(
        work,
        load_examples(config.data, work.tokenizer),
        config,
        epochs=config.num_epochs,
        microbatches=config.microbatches,
        too_long=config.too_long,
    )
    return finetune.Training(
        run=lambda params, directory: training.fine_tune(work, params, plan, directory),
        settings={"data_sha256": sha256},
    )


if __name__ == "__main__":
    # Here, so that a program may import several entry points: flags are global.
    _CONFIG = runtime.define_config("configs/sft.py")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/sft", "where everything is written")
    _ACCEPT_STOPPED = runtime.define_accept_stopped()
    runtime.run_main(main)
