"""Runs the main job: from a base model to a reasoner, stage by stage, with a report.

    python -m launch.run_r1 --config=configs/tiny.py --workdir=runs/tiny

The program skips stages that are complete and continues a stage that was interrupted. After a
change of the config it runs only the stages again that depend on the change, and moves their old
results to `stale/`. The stages are in `launch/recipe/`, the worlds that they run in (a model from
scratch, or a checkpoint) in `launch/recipe/worlds/`.
"""

import time
from pathlib import Path

from absl import flags

from launch import recipe, schema
from launch.parts import runtime
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig

_CONFIG = runtime.define_config("configs/tiny.py")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")
_STAGES = flags.DEFINE_list(
    "stages", list(recipe.STAGES), "stages to run, out of " + ", ".join(recipe.STAGES)
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "training runs, each with its own seed", lower_bound=1)
_ACCEPT_STOPPED = runtime.define_accept_stopped()


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    runtime.refuse_several("run_r1")
    if unknown := [stage for stage in _STAGES.value if stage not in recipe.STAGES]:
        known = ", ".join(recipe.STAGES)
        raise ValueError(f"--stages={unknown[0]} is unknown; choose from {known}")
    runtime.check_accepted(_ACCEPT_STOPPED.value, recipe.STAGES)
    config = runtime.read_config(_CONFIG, recipe.schema_of(_CONFIG.value))
    with runtime.working_directory(_WORKDIR.value, remote=True) as directory:
        _run(config, directory)


def _run(config, workdir: Path):
    from launch.parts import machine, report
    from launch.recipe import claims, findings, runner, world

    start = time.monotonic()
    works = world.open_workspaces(config, workdir, _SEEDS.value, _ACCEPT_STOPPED.value)
    by_seed = [runner.run_stages(work, _STAGES.value) for work in works]
    directories = [work.directory for work in works]
    combined = report.combine_seeds(by_seed)
    summary = {
        "config": schema.as_dict(config),
        "seeds": _SEEDS.value,
        "wall_seconds": time.monotonic() - start,
        "stages": {name: each for name, each in combined.items() if "metrics" in each},
    }
    others = {name: each for name, each in combined.items() if "metrics" not in each}
    summary["machine"] = machine.describe()
    found = findings.findings(by_seed, directories)
    judged = claims.judge(by_seed)
    report.write_report(
        workdir / "report.json", summary | {"findings": found, "claims": judged} | others
    )
    if summary["stages"]:
        _show(workdir, directories, summary["stages"])
    if "distill" in others:
        arms = {name: each for name, each in others["distill"].items() if name != "wall_seconds"}
        report.print_table(arms, _SEEDS.value)
    for line in [*findings.lines(found), *claims.lines(judged)]:
        print(line)
    print(f"report: {workdir / 'report.json'}")


def _show(workdir: Path, seeds: list[Path], reported):
    from launch.parts import report
    from train.metrics import read_metrics

    report.print_table(reported, _SEEDS.value)
    for stage in reported:
        runs = {
            directory.name: read_metrics(directory / stage)
            for directory in seeds
            if (directory / stage).is_dir()
        }
        if any("reward" in record for records in runs.values() for record in records):
            report.plot_training(workdir / f"{stage}.png", runs)
    directories = {stage: seeds[0] / stage for stage in reported}
    report.show_samples(workdir / "samples.json", directories)


if __name__ == "__main__":
    runtime.run_main(main, TinyConfig, SmallConfig)
