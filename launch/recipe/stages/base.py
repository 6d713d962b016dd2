"""Trains the base model from scratch, by next-token prediction on the tiny world's corpus."""

from pathlib import Path
from typing import Any

from launch.jobs.training import supervised
from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, world


def check(work: Workspace) -> None:
    """Raises `AssertionError` if the corpus asks a problem of the evaluation."""
    world.assert_held_out(work, world.asked_in(work))


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Pretrains the base model; returns its report."""
    params = supervised.pretrain(work, world.texts(work), work.config.pretrain, directory)
    return stages.publish(work, directory, params)


STAGE = Stage(needs=(), fields=("model", "tokenizer", "pretrain"), run=run, check=check)
