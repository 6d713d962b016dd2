r"""Fine-tunes any model that `models.checkpoint` opens on supervised data.

    python -m launch.run_sft --config=configs/sft.py --config.model=MODEL \
        --config.data=FILE.jsonl --workdir=runs/sft

`workdir` gets report.json and the folders `initial` and `sft` (see `launch/parts/stages.py`);
`sft/hf` is the trained model. The same command continues an interrupted run.
"""

import dataclasses
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from launch import schema
from launch.parts import runtime
from launch.schema.supervised import SftConfig


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    run(runtime.read_config(_CONFIG, SftConfig), _WORKDIR.value, _ACCEPT_STOPPED.value)


def run(config: SftConfig | ConfigDict, workdir: str, accept_stopped: Sequence[str] = ()) -> None:
    """Runs the job that the module describes."""
    config = schema.load(SftConfig, config)
    if not config.data:
        raise ValueError(
            "config.data is empty: give a JSONL file by --config.data=FILE, or the worked solutions"
            " of a task by --config.data=task:SPEC"
        )
    # JAX may start only here: `run_main` has set XLA's flags.
    from launch.jobs import finetune

    finetune.run(config, workdir, "sft", _prepare, accept_stopped)


def _prepare(work):
    """Reads and checks the data, and returns the training."""
    from launch.jobs import adapters, finetune
    from launch.jobs.training import supervised
    from launch.parts import data_files
    from reasoning.tasks import get_task
    from reasoning.training_data.worked_solutions import worked_records
    from train.data import encode_records, load_examples

    config = work.config
    context = work.model.config.max_length
    if config.row_length > context and not config.beyond_context:
        raise ValueError(
            f"config.row_length={config.row_length} exceeds the model's context of {context}"
            f" tokens: set it to {context}, or add --config.beyond_context to train at positions"
            " that the model has never seen"
        )
    task = config.data_task
    if task is None:
        examples = load_examples(config.data, work.tokenizer)
        sha256 = data_files.fingerprints([config.task], [config.data])
    else:
        records = worked_records(get_task(task), config.template, work.tokenizer)
        examples = encode_records(records, work.tokenizer)
        sha256 = data_files.fingerprints([config.task, task])
    work = adapters.adapted(work, config.lora)
    plan = supervised.plan_supervised(
        work,
        examples,
        dataclasses.replace(
            config, optimizer=adapters.adapter_optimizer(config.optimizer, config.lora)
        ),
        epochs=config.num_epochs,
        microbatches=config.microbatches,
        too_long=config.too_long,
    )

    def train(params, directory):
        params = adapters.attached(work, params)
        return work.model.merge(supervised.fine_tune(work, params, plan, directory))

    return finetune.Training(
        run=train,
        settings={"data_sha256": sha256},
    )


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _CONFIG = runtime.define_config("configs/sft.py")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/sft", "where everything is written")
    _ACCEPT_STOPPED = runtime.define_accept_stopped()
    runtime.run_main(main, SftConfig)
