"""The base model: next-token prediction from scratch on the tiny world's corpus."""

from pathlib import Path
from typing import Any

from launch import stages, training
from launch.recipe import Stage, world
from launch.stages import Workspace


def check(work: Workspace) -> None:
    world.assert_held_out(work, world.asked_in(work))


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    params = training.pretrain(work, world.texts(work), work.config.pretrain, directory)
    return stages.publish(work, directory, params)


STAGE = Stage(needs=(), fields=("model", "tokenizer", "pretrain"), run=run, check=check)
