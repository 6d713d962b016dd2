"""Pretraining and supervised fine-tuning, as a config says.

A plan holds everything but the weights. Making it finds the mistakes in config and data.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from launch.jobs import adapters
from launch.jobs.training import outcome
from launch.parts.endings import read_stop
from launch.parts.stages import Workspace
from launch.schema import as_dict
from launch.schema.distill import OnPolicy
from launch.schema.sections import Packed, Pretraining
from reasoning.training_data.distillation_data import short_first
from train.checkpoint import Checkpointer
from train.data import Example, encode_records
from train.loop import run
from train.metrics import MetricWriter
from train.objectives import sft
from train.optimizer import Optimizer, make_optimizer
from train.source import PackedSource, Source
from train.state import TrainState, create_state, state_from_params
from train.step import LossFn, Metrics, TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class SupervisedPlan:
    """A training on examples without its weights; making it checks config and data."""

    settings: Mapping[str, Any]
    source: Source
    num_steps: int
    optimizer: Optimizer
    step: TrainStep
    checkpoint_every: int
    log_every: int
    checkpoint_every_minutes: float | None = None


def plan_supervised(
    work: Workspace,
    examples: list[Example],
    config: Packed,
    *,
    epochs: int = 1,
    microbatches: int = 1,
    too_long: str = "error",
    curriculum: int = 1,
    make_loss: Callable[[Any], LossFn] = sft.make_loss,
    finalize: Callable[[Metrics], Metrics] = lambda metrics: metrics,
    constants: Any = None,
) -> SupervisedPlan:
    """Packs `examples` and makes their train step.

    Args:
      work: the run.
      examples: the training data.
      config: rows, optimizer and intervals.
      epochs: passes over the examples.
      microbatches: parts of a batch whose gradients are accumulated.
      too_long: what to do with examples longer than a row; see `PackedSource`.
      curriculum: stages of each epoch, with ever longer examples; 1 shuffles all.
      make_loss: model -> loss; next-token prediction by default.
      finalize, constants: see `make_train_step`.

    Raises:
      ValueError: in one line: an example does not fit, or a setting is bad.
    """
    if curriculum > 1:
        lengths = [len(example["tokens"]) for example in examples]
        examples = [examples[i] for i in short_first(lengths, curriculum, work.seed)]
    source = packed(work, examples, config, epochs, too_long, shuffle=curriculum == 1)
    num_steps = source.count_batches()
    optimizer = make_optimizer(config.optimizer.settings(), work.model.abstract_params, num_steps)
    step = make_train_step(
        make_loss(work.model),
        optimizer,
        work.mesh,
        accumulate=microbatches,
        finalize=finalize,
        constants=constants,
    )
    step.check_rows(config.rows, config.row_length)
    return SupervisedPlan(
        settings={"supervised": as_dict(config), "seed": work.seed},
        source=source,
        num_steps=num_steps,
        optimizer=optimizer,
        step=step,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        checkpoint_every_minutes=config.checkpoint_every_minutes,
    )


def packed(
    work: Workspace,
    examples: list[Example],
    config: Packed | OnPolicy,
    epochs: int | None = None,
    too_long: str = "error",
    shuffle: bool = True,
) -> PackedSource:
    """Returns batches of `config.rows` rows of `config.row_length`; endless without `epochs`."""
    # Packing does not keep the order within a window, so ordered examples get small windows.
    window: dict[str, Any] = {} if shuffle else {"window": 4 * config.rows}
    return PackedSource(
        examples,
        rows=config.rows,
        row_length=config.row_length,
        seed=work.seed,
        num_epochs=epochs,
        too_long=too_long,
        shuffle=shuffle,
        **window,
    )


def pretrain(work: Workspace, texts: list[str], config: Pretraining, directory: Path) -> Any:
    """Trains a base model from scratch by next-token prediction on `texts`, in one pass."""
    examples = encode_records([{"text": text} for text in texts], work.tokenizer)
    plan = plan_supervised(work, examples, config)
    state = create_state(work.model, plan.optimizer, work.mesh, jax.random.key(work.seed))
    return _supervise(work, state, plan, directory)


def fine_tune(work: Workspace, params: Any, plan: SupervisedPlan, directory: Path) -> Any:
    """Trains as planned from `params`, whose buffers it reuses; returns new parameters."""
    state = state_from_params(work.model, params, plan.optimizer, work.mesh)
    return _supervise(work, state, plan, directory)


def _supervise(work: Workspace, state: TrainState, plan: SupervisedPlan, directory: Path) -> Any:
    outcome.refuse_stopped(work, directory)
    split, base = adapters.kept_apart(work, plan.optimizer, state.params)
    with Checkpointer(
        directory / "checkpoints",
        config={**plan.settings, **base},
        best_metric="loss",
        best_mode="min",
        split=split,
    ) as checkpointer:
        if (stop := read_stop(directory)) is not None:
            return outcome.last_good(work, directory, stop, checkpointer, state)
        result = run(
            state,
            plan.step,
            plan.source,
            num_steps=plan.num_steps,
            title=directory.name,
            writer=MetricWriter(directory),
            checkpointer=checkpointer,
            checkpoint_every=plan.checkpoint_every,
            checkpoint_every_minutes=plan.checkpoint_every_minutes,
            log_every=plan.log_every,
        )
    return outcome.finished(work, directory, result)
