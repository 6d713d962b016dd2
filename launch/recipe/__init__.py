"""Lists the stages of the R1 recipe; each stage has a file of its own.

    base -> r1_zero                                       RL alone
    r1_zero -> cold_start -> reasoning_rl                 its chains, cleaned, start the base anew
    reasoning_rl -> rejection_sft -> r1                   and once more, with all there is to learn
    reasoner -> verifiers -> search                       what more compute at inference buys
    reasoner -> distill                                   its reasoning in a smaller student

The reasoner is r1_zero in the tiny world and r1 on a checkpoint.

To add a stage, write `launch/recipe/stages/NAME.py` with a `STAGE`, and put NAME into `STAGES`
behind the stages that it needs. Nothing here imports JAX, so a command line is read before it
starts.
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.schema.recipe import RecipeConfig
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig

# The stages run and are reported in this order.
STAGES = (
    "base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1", "verifiers", "search",
    "distill",
)  # fmt: skip
# Stages that a recipe may be without; their sections are None then.
ADDED = ("verifiers", "search", "distill")
# Stages that run in several processes, on the devices of several machines.
ON_SEVERAL = ("base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1")

# Among the needs of a stage: the stage that the config's schema names (`RecipeConfig.reasoner`).
REASONER = "reasoner"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the recipe.

    Attributes:
      needs: stages whose results the stage reads from disk; see `inputs`.
      fields: fields of the config that the result depends on, besides the seed, `evaluation` and
        the fields of the stages in `needs`.
      run: `(work, directory) -> report`; does the stage's work in its directory and returns its
        part of `report.json`. A mapping with `metrics` goes into the report's `stages`
        (`launch.parts.stages.publish` makes one from trained parameters); anything else goes under
        the stage's own name.
      check: `(work)`; raises an error for mistakes in config or data, before any stage runs.
    """

    needs: tuple[str, ...]
    fields: tuple[str, ...]
    run: Callable[[Any, Path], Any]
    check: Callable[[Any], None] = lambda work: None


def schema_of(config: Any) -> type[RecipeConfig]:
    """Returns the schema of a recipe's config: `model` names a checkpoint or has the sizes of one.

    Args:
      config: a ConfigDict; None, or one without a model, gets the tiny world's.
    """
    return SmallConfig if isinstance((config or {}).get("model"), str) else TinyConfig


def stages_of(config: RecipeConfig) -> tuple[str, ...]:
    """Returns the stages that a recipe has, in order."""
    return tuple(n for n in STAGES if n not in ADDED or getattr(config, n) is not None)


def get_stage(name: str) -> Stage:
    """Returns the stage of a name in `STAGES`; imports its module, and so JAX."""
    return importlib.import_module(f"launch.recipe.stages.{name}").STAGE


def inputs(name: str, reasoner: str = "r1_zero") -> list[str]:
    """Returns the stages that a stage reads.

    Args:
      name: the stage.
      reasoner: the stage that `REASONER` stands for.
    """
    return [reasoner if each == REASONER else each for each in get_stage(name).needs]


def lineage(name: str, reasoner: str = "r1_zero") -> list[str]:
    """Returns all stages that a stage builds on, and the stage itself last, as `STAGES` orders."""
    found = {name}
    for earlier in inputs(name, reasoner):
        found.update(lineage(earlier, reasoner))
    return [each for each in STAGES if each in found]
