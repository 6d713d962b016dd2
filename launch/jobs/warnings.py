"""Prints what `rl.guards.diagnosis` finds in a training, and keeps it for the stage's report."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from launch.parts.stages import WARNINGS_FILE
from launch.schema.rl import Reinforcement
from models.files import write_atomically
from rl.guards.diagnosis import Diagnosis, Finding, Settings


def make_diagnosis(config: Reinforcement, directory: Path) -> Diagnosis:
    """Returns the guard that watches an RL training for what keeps it from learning.

    Args:
      config: the training's settings; `config.diagnosis` says whether findings may stop it.
      directory: gets the findings in `WARNINGS_FILE`. A training that begins anew there begins with
        none.
    """
    leads = jax.process_index() == 0
    path = directory / WARNINGS_FILE

    def record(findings: Sequence[Finding]) -> None:
        if leads and findings:
            write_atomically(path, json.dumps([dataclasses.asdict(each) for each in findings]))
        elif leads:
            path.unlink(missing_ok=True)

    def say(line: str) -> None:
        if leads:
            print(f"warning: {directory.name}: {line}", flush=True)

    record([])
    return Diagnosis(
        Settings(
            prompts=config.prompts,
            group=config.group,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            learning_rate=config.optimizer.learning_rate,
        ),
        say=say,
        record=record,
        stop=config.diagnosis == "stop",
    )
