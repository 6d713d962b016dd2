"""The base model, as its world gives it: trained from scratch, or a checkpoint."""

from pathlib import Path
from typing import Any

from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, world


def check(work: Workspace) -> None:
    """Raises `AssertionError` if the base model has seen a problem of the evaluation."""
    world.assert_held_out(work, world.world_of(work.config).seen(work))


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Makes or loads the base model; returns its report."""
    params = world.world_of(work.config).make_base(work, directory)
    return stages.publish(work, directory, params)


STAGE = Stage(needs=(), fields=("model", "tokenizer", "pretrain", "dtype"), run=run, check=check)
