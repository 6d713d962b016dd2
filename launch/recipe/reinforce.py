"""Makes the stages of RL with verifiable rewards."""

from pathlib import Path
from typing import Any

from launch.jobs.training import reinforcement
from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, world
from launch.schema.rl import RecipeRl
from launch.terminal.samples import Watched


def rl_stage(name: str, start: str) -> Stage:
    """Returns a stage of RL from the result of stage `start`, with the config's section `name`."""

    def plan(work: Workspace) -> reinforcement.ReinforcePlan:
        config: RecipeRl = getattr(work.config, name)
        problems = world.training_problems(work, config.problems)
        return reinforcement.plan_reinforce(work, problems, config)

    def run(work: Workspace, directory: Path) -> dict[str, Any]:
        params = stages.load_stage(work, start)
        planned = plan(work)
        watched = Watched(work, planned.config, directory)
        watched.begin(params)
        params = reinforcement.reinforce(work, params, planned, directory, watch=watched)
        return stages.publish(work, directory, params)

    return Stage(
        needs=(start,),
        fields=("template", name),
        run=run,
        check=lambda work: plan(work) and None,
    )
