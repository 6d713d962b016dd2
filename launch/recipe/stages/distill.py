"""Distils the reasoner's skill into a student of a quarter of its size, by every method."""

import dataclasses
from pathlib import Path
from typing import Any

from launch.jobs.distillation import job
from launch.jobs.distillation.arms import Teacher
from launch.parts import runtime, stages
from launch.parts.stages import Workspace
from launch.recipe import REASONER, Stage, world
from launch.schema import as_dict


def _student(work: Workspace, directory: Path) -> Workspace:
    model = runtime.build_model(world.world_of(work.config).student_settings(work))
    accepted = job.TRAINED if "distill" in work.accept_stopped else ()
    return dataclasses.replace(work, directory=directory, model=model, accept_stopped=accepted)


def check(work: Workspace) -> None:
    """Raises `ValueError` for settings that the distillation cannot run with."""
    config = work.config.distill
    problems = world.training_problems(work, config.problems)
    student = _student(work, work.stage_directory("distill"))
    job.prepare(student, Teacher(work, None), problems, config)


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Runs every arm of the distillation; returns their reports."""
    config, student = work.config.distill, _student(work, directory)
    return job.distill(
        student,
        Teacher(work, stages.load_stage(work, work.config.reasoner)),
        world.training_problems(work, config.problems),
        config,
        lambda directory: world.world_of(work.config).make_student(student, directory),
        settings={"base": as_dict(config.base), "evaluation": as_dict(work.config.evaluation)},
    )


STAGE = Stage(needs=(REASONER,), fields=("distill", "reasoner"), run=run, check=check)
