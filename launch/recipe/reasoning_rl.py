"""Reasoning RL from the cold start: accuracy, format and language consistency.

DeepSeek-R1 (arXiv:2501.12948, 2.3.2).
"""

from pathlib import Path
from typing import Any

from launch import stages, training
from launch.recipe import Stage, world
from launch.stages import Workspace
from launch.training import ReinforcePlan


def _plan(work: Workspace) -> ReinforcePlan:
    config = work.config.reasoning_rl
    return training.plan_reinforce(work, world.training_problems(work, config.problems), config)


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    start = stages.load_stage(work, "cold_start")
    params = training.reinforce(work, start, _plan(work), directory)
    return stages.publish(work, directory, params)


STAGE = Stage(
    needs=("cold_start",),
    fields=("template", "reasoning_rl"),
    run=run,
    check=lambda work: _plan(work) and None,
)
