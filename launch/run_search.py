"""Inference-time scaling on the tiny world: every search method at every budget.

    python -m launch.run_search --config=configs/tiny.py:search --workdir=runs/tiny

Takes the stages of `launch.run_r1` that are in the work directory, and runs those that search
needs and are not there: base, R1-Zero, and the verifiers.
"""

import json
import time

from absl import flags
from ml_collections import config_flags

from launch import recipe
from launch.parts import runtime

_CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py:search", "the recipe")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")


def main(argv):
    del argv
    start = time.monotonic()
    # JAX starts here, once XLA's flags are set.
    from launch.parts import report, stages
    from launch.recipe import runner, world

    runtime.start_distributed()
    (work,) = world.open_workspaces(_CONFIG.value, _WORKDIR.value, 1)
    try:
        results = runner.run_stages(work, recipe.lineage("search"))
    except stages.Interrupted as interruption:
        print(f"interrupted: {interruption}; the same command goes on from here")
        return
    path = work.stage_directory("search") / "report.json"
    report.write_report(
        path,
        {
            "config": json.loads(_CONFIG.value.to_json_best_effort()),
            "seeds": 1,
            "wall_seconds": time.monotonic() - start,
            "search": results["search"],
            "verifiers": results["verifiers"],
        },
    )
    print(f"report: {path}")


if __name__ == "__main__":
    runtime.run_main(main)
