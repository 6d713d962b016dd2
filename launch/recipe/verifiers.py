"""Process and outcome reward models of the base model, trained on its own labelled solutions.

The base model, made to think by its prompt, is what search is tried on: its steps go wrong often,
and not always.
"""

import dataclasses
from pathlib import Path
from typing import Any

from launch import stages, verifier_training
from launch.recipe import Stage
from launch.stages import Workspace
from launch.verifier_training import VerifierPlan


def plan(work: Workspace) -> VerifierPlan:
    config = work.config.copy_and_resolve_references()
    config.template = config.verifiers.template
    return verifier_training.plan_verifiers(
        dataclasses.replace(work, config=config), config.verifiers
    )


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    params = stages.load_stage(work, "base")
    return verifier_training.train_verifiers(work, params, plan(work), directory)


STAGE = Stage(
    needs=("base",),
    fields=("verifiers",),
    run=run,
    check=lambda work: plan(work) and None,
)
