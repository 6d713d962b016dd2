"""The R1 recipe as a table of stages, one file each.

    base -> r1_zero                                       RL alone
    r1_zero -> cold_start -> reasoning_rl                 its chains, cleaned, start the base anew
    reasoning_rl -> rejection_sft -> r1                   and once more, with all there is to learn
    r1_zero -> verifiers -> search                        what more compute at inference buys
    r1_zero -> distill                                    its reasoning in a smaller student

To add one, write `launch/recipe/stages/NAME.py` with a `STAGE`, and name it in `STAGES`, after the
stages that it needs. Nothing here imports JAX, so that a command line can be read before it starts.
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# In the order in which they run and are reported.
STAGES = (
    "base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1", "verifiers", "search",
    "distill",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the recipe.

    Attributes:
      needs: stages whose results it reads from disk.
      fields: fields of the config that its result depends on, besides those that the stages it
        needs depend on. The seed and `evaluation` go without saying.
      run: `(work, directory) -> report`: does the stage's work in its directory and returns what
        `report.json` has of it. A mapping with `metrics` stands among the report's `stages` (see
        `launch.parts.stages.publish`, which makes one of trained parameters); anything else stands
        under the stage's own name.
      check: `(work)`: finds what is wrong with config and data, before any stage runs.
    """

    needs: tuple[str, ...]
    fields: tuple[str, ...]
    run: Callable[[Any, Path], Any]
    check: Callable[[Any], None] = lambda work: None


def get_stage(name: str) -> Stage:
    """Returns the stage of a name in `STAGES`; imports its module, and so JAX."""
    return importlib.import_module(f"launch.recipe.stages.{name}").STAGE


def lineage(name: str) -> list[str]:
    """All stages that a stage builds on, and last the stage itself, in the order of `STAGES`."""
    found = {name}
    for earlier in get_stage(name).needs:
        found.update(lineage(earlier))
    return [each for each in STAGES if each in found]
