"""Trains low-rank adapters instead of all weights, where a config asks for it.

    work = adapted(work, config.lora)              # its model has adapters
    params = attached(work, params)                # new adapters change nothing
    ...                                            # train with `adapter_optimizer`
    params = work.model.merge(params)              # the base model's parameters again

Without adapters, each of these changes nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from launch.parts.stages import Workspace
from launch.schema import as_dict
from launch.schema.sections import Lora
from launch.schema.sections import Optimizer as OptimizerSection
from models.lora import LR_RULES, LoraConfig, LoraModel
from train.frozen import digest
from train.optimizer import Optimizer

Split = Callable[[Any], tuple[Any, Any]]
W = TypeVar("W", bound=Workspace)


def adapted(work: W, lora: Lora) -> W:
    """Returns the workspace with a model that has adapters; `work` itself if the rank is 0.

    Raises:
      ValueError: the targets match no kernel.
    """
    if not lora.rank:
        return work
    model = LoraModel(work.model.config, LoraConfig(**as_dict(lora)))
    return dataclasses.replace(work, model=model)


def adapter_optimizer(optimizer: OptimizerSection, lora: Lora) -> OptimizerSection:
    """Returns the optimizer with rules that train the adapters alone, if there are any."""
    return dataclasses.replace(optimizer, lr_rules=LR_RULES) if lora.rank else optimizer


def attached(work: Workspace, params: Any) -> Any:
    """Returns the parameters with new adapters, drawn from the run's seed, if the model has any."""
    if not isinstance(work.model, LoraModel):
        return params
    return work.model.attach(params, jax.random.key(work.seed))


def kept_apart(
    work: Workspace, optimizer: Optimizer, params: Any
) -> tuple[Split | None, Mapping[str, Any]]:
    """Says what checkpoints leave out: the base model of adapters, which no update changes.

    Returns:
      `split` of a `Checkpointer`, and what its config must have so that the base model of a resumed
      run is that of the saved one.
    """
    if not isinstance(work.model, LoraModel):
        return None, {}
    return optimizer.split, {"base_model_sha256": digest(optimizer.split(params)[1])}
