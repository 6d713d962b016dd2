"""Measures inference-time scaling: every search method at every budget, with trained verifiers.

    python -m launch.run_search --config=configs/tiny.py:search --workdir=runs/tiny

Search needs a reasoner and its verifiers, which are stages of `launch.run_r1`. The program takes
them from the work directory, and runs those that are missing there.
"""

import time
from pathlib import Path

from absl import flags

from launch import recipe, schema
from launch.parts import runtime
from launch.schema.recipe import RecipeConfig
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig

_CONFIG = runtime.define_config("configs/tiny.py:search")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")
_ACCEPT_STOPPED = runtime.define_accept_stopped()


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    runtime.refuse_several("run_search")
    config = runtime.read_config(_CONFIG, recipe.schema_of(_CONFIG.value))
    if config.search is None or config.verifiers is None:
        raise ValueError("config.search or config.verifiers is None: the recipe has no search")
    runtime.check_accepted(_ACCEPT_STOPPED.value, recipe.STAGES)
    with runtime.working_directory(_WORKDIR.value) as directory:
        _run(config, directory)


def _run(config: RecipeConfig, directory: Path):
    from launch.parts import machine, report
    from launch.recipe import runner, world

    start = time.monotonic()
    (work,) = world.open_workspaces(config, directory, 1, _ACCEPT_STOPPED.value)
    results = runner.run_stages(work, recipe.lineage("search", config.reasoner))
    path = work.stage_directory("search") / "report.json"
    report.write_report(
        path,
        {
            "config": schema.as_dict(config),
            "seeds": 1,
            "wall_seconds": time.monotonic() - start,
            "search": results["search"],
            "verifiers": results["verifiers"],
            "machine": machine.describe(),
        },
    )
    print(f"report: {path}")


if __name__ == "__main__":
    runtime.run_main(main, TinyConfig, SmallConfig)
