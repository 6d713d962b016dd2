"""Runs the main job: from a base model to a reasoner, stage by stage, with a report.

    python -m launch.run_r1 --config=configs/tiny.py --workdir=runs/tiny

The program skips stages that are complete and continues a stage that was interrupted. After a
change of the config it runs only the stages again that depend on the change, and moves their old
results to `stale/`. The stages are in `launch/recipe/`, the worlds that they run in (a model from
scratch, or a checkpoint) in `launch/recipe/worlds/`. On a pod, the stages up to `r1` run on a
checkpoint in one process for each machine.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch import recipe, schema
from launch.parts import runtime
from launch.schema.recipe import RecipeConfig
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig
from models import processes

_CONFIG = runtime.define_config("configs/tiny.py")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "where everything is written")
_STAGES = flags.DEFINE_list(
    "stages",
    None,
    f"stages to run, out of {', '.join(recipe.STAGES)}; by default all that the recipe has",
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "training runs, each with its own seed", lower_bound=1)
_ACCEPT_STOPPED = runtime.define_accept_stopped()


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    if unknown := [stage for stage in _STAGES.value or () if stage not in recipe.STAGES]:
        known = ", ".join(recipe.STAGES)
        raise ValueError(f"--stages={unknown[0]} is unknown; choose from {known}")
    runtime.check_accepted(_ACCEPT_STOPPED.value, recipe.STAGES)
    config = runtime.read_config(_CONFIG, recipe.schema_of(_CONFIG.value))
    names = _STAGES.value or recipe.stages_of(config)
    on_several = isinstance(config, SmallConfig) and set(names) <= set(recipe.ON_SEVERAL)
    if on_several:
        runtime.start_distributed()
    else:
        runtime.refuse_several(
            "run_r1",
            f"on a checkpoint, its stages {', '.join(recipe.ON_SEVERAL)} can run in several",
        )
    if missing := [name for name in names if name not in recipe.stages_of(config)]:
        raise ValueError(f"config.{missing[0]} is None: the recipe has no stage {missing[0]}")
    with runtime.working_directory(_WORKDIR.value, remote=True) as directory:
        command = _run(config, names, directory)
    print(f"next: {command}")


def _run(config: RecipeConfig, chosen: Sequence[str], workdir: Path) -> str:
    """Runs the stages, shows the results, and returns the command to try next."""
    from launch.parts import machine, report
    from launch.recipe import claims, findings, runner, world
    from launch.terminal import ending, following

    start = time.monotonic()
    works = world.open_workspaces(config, workdir, _SEEDS.value, _ACCEPT_STOPPED.value)
    names = [name for name in recipe.STAGES if name in chosen]
    waiting = [n for n in names if not all(runner.is_complete(work, n) for work in works)]
    complete = [name for name in names if name not in waiting]
    watch = following.begin(config, works, waiting)
    print("\n".join(following.introduction(config, watch, waiting, complete, workdir)), flush=True)
    with watch.telling():
        by_seed = [runner.run_stages(work, names) for work in works]
    processes.gathered(None)  # The main process has written everything.
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
    whole = summary | {"findings": found, "claims": judged} | others
    report.write_report(workdir / "report.json", whole)
    pictures = _show(workdir, directories, summary["stages"]) if summary["stages"] else []
    if "distill" in others:
        arms = {name: each for name, each in others["distill"].items() if name != "wall_seconds"}
        report.print_table(arms, _SEEDS.value)
    for line in [*findings.lines(found), *claims.lines(judged)]:
        print(line)
    ran = ending.Ran(waiting, complete, summary["wall_seconds"], watch.estimated)
    print("\n" + "\n".join(ending.sentences(whole, ran)) + "\n")
    print(f"report: {workdir / 'report.json'}")
    for picture in pictures:
        print(f"picture: {picture}")
    return ending.next_command(whole, _config_path(), _WORKDIR.value)


def _config_path() -> str:
    """Returns what `--config` said."""
    return str(flags.FLAGS["config"].config_filename)


def _show(workdir: Path, seeds: Sequence[Path], reported: Mapping[str, Any]) -> list[Path]:
    """Shows table, curves and samples of the stages; returns the pictures that it wrote."""
    from launch.parts import report

    report.print_table(reported, _SEEDS.value)
    pictures = []
    for stage in reported:
        folders = [each / stage for each in seeds if (each / stage).is_dir()]
        picture = workdir / f"{stage}.png"
        if report.plot_training(picture, {each.parent.name: each for each in folders}):
            pictures.append(picture)
    directories = {stage: seeds[0] / stage for stage in reported}
    report.show_samples(workdir / "samples.json", directories)
    return pictures


if __name__ == "__main__":
    runtime.run_main(main, TinyConfig, SmallConfig)
