"""Inference-time scaling on the tiny world: every search method at every budget.

    python -m launch.run_search --config=configs/tiny.py:search --workdir=runs/tiny

Takes the stages of `launch.run_r1` that are in the work directory, and runs those that search
needs and are not there: base, R1-Zero, and the verifiers.
"""

import time

from absl import flags

from launch import recipe, schema
from launch.parts import runtime
from launch.schema.tiny import TinyConfig

_CONFIG = runtime.define_config("configs/tiny.py:search")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")


def main(argv):
    del argv
    start = time.monotonic()
    config = runtime.read_config(_CONFIG, TinyConfig)
    # JAX starts here, once XLA's flags are set.
    from launch.parts import report, stages
    from launch.recipe import runner, world

    runtime.start_distributed()
    (work,) = world.open_workspaces(config, _WORKDIR.value, 1)
    try:
        results = runner.run_stages(work, recipe.lineage("search"))
    except stages.Interrupted as interruption:
        print(f"interrupted: {interruption}; the same command goes on from here")
        return
    path = work.stage_directory("search") / "report.json"
    report.write_report(
        path,
        {
            "config": schema.as_dict(config),
            "seeds": 1,
            "wall_seconds": time.monotonic() - start,
            "search": results["search"],
            "verifiers": results["verifiers"],
        },
    )
    print(f"report: {path}")


if __name__ == "__main__":
    runtime.run_main(main)
