"""Trains process and outcome reward models of the reasoner on its own labelled solutions."""

from pathlib import Path
from typing import Any

from launch.jobs import verifier_training
from launch.jobs.verifier_training import VerifierPlan
from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import REASONER, Stage


def plan(work: Workspace) -> VerifierPlan:
    """Plans the verifiers of the config; raises `ValueError` for settings that do not work."""
    return verifier_training.plan_verifiers(work, work.config.verifiers)


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Labels the reasoner's solutions and trains the verifiers on them; returns their figures."""
    params = stages.load_stage(work, work.config.reasoner)
    return verifier_training.train_verifiers(work, params, plan(work), directory)


STAGE = Stage(
    needs=(REASONER,),
    fields=("template", "verifiers", "reasoner"),
    run=run,
    check=lambda work: plan(work) and None,
)
