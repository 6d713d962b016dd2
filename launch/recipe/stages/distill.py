"""Distils R1-Zero's reasoning into a student of a quarter of its size, by every method."""

import dataclasses
from pathlib import Path
from typing import Any

from launch.jobs import distillation
from launch.jobs.distillation import Teacher
from launch.jobs.training import supervised
from launch.parts import runtime, stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, world
from launch.schema import as_dict
from reasoning.tiny_world import corpus


def _student(work: Workspace, directory: Path) -> Workspace:
    model = runtime.build_model(work.config.distill.base.model.settings())
    accepted = distillation.TRAINED if "distill" in work.accept_stopped else ()
    return dataclasses.replace(work, directory=directory, model=model, accept_stopped=accepted)


def check(work: Workspace) -> None:
    """Raises `ValueError` for settings that the distillation cannot run with."""
    config = work.config.distill
    problems = world.training_problems(work, config.problems)
    student = _student(work, work.stage_directory("distill"))
    distillation.prepare(student, Teacher(work, None), problems, config)


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Runs every arm of the distillation; returns their reports."""
    config, student = work.config.distill, _student(work, directory)
    pretrain = config.base.pretrain

    def make_base(directory):
        texts = corpus.documents(pretrain.documents, work.seed)
        return supervised.pretrain(student, texts, pretrain, directory)

    return distillation.distill(
        student,
        Teacher(work, stages.load_stage(work, "r1_zero")),
        world.training_problems(work, config.problems),
        config,
        make_base,
        settings={"base": as_dict(config.base), "evaluation": as_dict(work.config.evaluation)},
    )


STAGE = Stage(needs=("r1_zero",), fields=("distill",), run=run, check=check)
