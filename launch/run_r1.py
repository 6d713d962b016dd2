"""The main job: from a base model to a reasoner, stage by stage, with a report.

    python -m launch.run_r1 --config=configs/tiny.py --workdir=runs/tiny

Stages that are complete are not run again, and one that was interrupted goes on where it was. After
a change of the config just the stages that depend on it are run again; what they had left is moved
to `stale/`. The stages are in `launch/recipe/`.
"""

import time
from pathlib import Path

from absl import flags

from launch import recipe, schema
from launch.parts import runtime
from launch.schema.tiny import TinyConfig

_CONFIG = runtime.define_config("configs/tiny.py")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")
_STAGES = flags.DEFINE_list(
    "stages", list(recipe.STAGES), "which stages to run, of " + ", ".join(recipe.STAGES)
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "training runs, each with its own seed", lower_bound=1)


def main(argv):
    del argv
    start = time.monotonic()
    if unknown := [stage for stage in _STAGES.value if stage not in recipe.STAGES]:
        known = ", ".join(recipe.STAGES)
        raise ValueError(f"--stages={unknown[0]} is unknown; choose from {known}")
    config = runtime.read_config(_CONFIG, TinyConfig)
    # JAX starts here, once XLA's flags are set.
    from launch.parts import report, stages
    from launch.recipe import findings, runner, world

    runtime.start_distributed()
    workdir = runtime.as_directory(_WORKDIR.value)
    by_seed, directories = [], []
    try:
        for work in world.open_workspaces(config, _WORKDIR.value, _SEEDS.value):
            by_seed.append(runner.run_stages(work, _STAGES.value))
            directories.append(work.directory)
    except stages.Interrupted as interruption:
        print(f"interrupted: {interruption}; the same command goes on from here")
        return

    combined = report.combine_seeds(by_seed)
    summary = {
        "config": schema.as_dict(config),
        "seeds": _SEEDS.value,
        "wall_seconds": time.monotonic() - start,
        "stages": {name: each for name, each in combined.items() if "metrics" in each},
    }
    others = {name: each for name, each in combined.items() if "metrics" not in each}
    found = findings.findings(by_seed, directories)
    report.write_report(workdir / "report.json", summary | {"findings": found} | others)
    if summary["stages"]:
        _show(workdir, config.seed, summary["stages"])
    if "distill" in others:
        arms = {name: each for name, each in others["distill"].items() if name != "wall_seconds"}
        report.print_table(arms, _SEEDS.value)
    for line in findings.lines(found):
        print(line)
    print(f"report: {workdir / 'report.json'}")


def _show(workdir: Path, seed: int, reported):
    from launch.parts import report
    from train.metrics import METRICS_FILE

    report.print_table(reported, _SEEDS.value)
    for stage in reported:
        runs = {
            directory.parent.name: report.read_metrics(directory / METRICS_FILE)
            for directory in sorted(workdir.glob(f"seed_*/{stage}"))
        }
        if any("reward" in record for records in runs.values() for record in records):
            report.plot_training(workdir / f"{stage}.png", runs)
    directories = {stage: workdir / f"seed_{seed}" / stage for stage in reported}
    report.show_samples(workdir / "samples.json", directories)


if __name__ == "__main__":
    runtime.run_main(main)
