"""R1-Zero: RL with verifiable rewards from the base model, with no SFT before it."""

from pathlib import Path
from typing import Any

from launch import stages, training
from launch.recipe import Stage, world
from launch.stages import Workspace
from launch.training import ReinforcePlan


def _plan(work: Workspace) -> ReinforcePlan:
    config = work.config.r1_zero
    return training.plan_reinforce(work, world.training_problems(work, config.problems), config)


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    base = stages.load_stage(work, "base")
    params = training.reinforce(work, base, _plan(work), directory)
    return stages.publish(work, directory, params)


STAGE = Stage(
    needs=("base",),
    fields=("template", "r1_zero"),
    run=run,
    check=lambda work: _plan(work) and None,
)
