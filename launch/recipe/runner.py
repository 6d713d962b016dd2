"""Runs stages of the recipe; keeps complete ones, and sets those of another config aside."""

from collections.abc import Sequence
from typing import Any

from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import STAGES, get_stage, inputs, lineage
from launch.schema import as_dict
from models import processes
from models.host.storage import make_folder, move_tree


def run_stages(work: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """Runs some stages of one seed, in the recipe's order.

    A stage whose result on disk has this config is not run again. The folder of a stage that was
    trained with another config moves to `stale/`. A stage whose evaluation alone has another config
    is evaluated again.

    Returns:
      Stage -> its report, as `launch.parts.stages.run_stage` returns it.

    Raises:
      FileNotFoundError, ValueError: before any stage runs: an input is missing or has another
        config, or a stage's check fails.
      Stopped: the training of a stage or of an input stopped itself, and `work.accept_stopped` does
        not name it.
    """
    reasoner = work.config.reasoner
    needed = {each for name in names for each in inputs(name, reasoner)}
    # A stage whose checkpoint is accepted as its result has to run, to publish that checkpoint.
    accepted = needed & set(work.accept_stopped)
    names = [name for name in STAGES if name in names or name in accepted]
    waiting = [name for name in names if not is_complete(work, name)]
    for name in waiting:
        for each in inputs(name, reasoner):
            if each not in names:
                _check_input(work, each)
    for name in waiting:
        get_stage(name).check(work)
    results = {}
    for name in names:
        _make_room(work, name)
        results[name] = stages.run_stage(
            work,
            name,
            settings_of(work, name),
            lambda directory, name=name: get_stage(name).run(work, directory),
        )
    return results


def settings_of(work: Workspace, name: str) -> dict[str, Any]:
    """Returns what a stage's result depends on; `training` is what its weights and data need."""
    config = as_dict(work.config)
    stages_of = lineage(name, work.config.reasoner)
    # A world has some of the fields: a checkpoint has no corpus to be trained on.
    fields = [f for each in stages_of for f in get_stage(each).fields if f in config]
    return {
        "training": {"seed": work.seed} | {field: config[field] for field in fields},
        "evaluation": config["evaluation"],
    }


def is_complete(work: Workspace, name: str) -> bool:
    """Tells whether a stage's result is on disk, of this config."""
    done = work.stage_directory(name) / stages.RESULT_FILE
    complete = done.exists() and stages.saved_settings(work, name) == settings_of(work, name)
    return processes.from_main(complete)


def _check_input(work: Workspace, name: str) -> None:
    directory = work.stage_directory(name)
    stages.check_complete(directory, name)
    saved = stages.saved_settings(work, name)
    if saved is None or saved["training"] != settings_of(work, name)["training"]:
        raise ValueError(
            f"{directory} is of another config: run the stage {name} again first (--stages={name})"
        )


def _make_room(work: Workspace, name: str) -> None:
    if not processes.is_main():
        return  # The next thing that all of them do is `run_stage`, which waits for the main one.
    saved, settings = stages.saved_settings(work, name), settings_of(work, name)
    if saved is None or saved == settings:
        return
    directory = work.stage_directory(name)
    if saved["training"] == settings["training"]:
        # The training is finished and restores its last checkpoint.
        print(
            f"{name}: already trained; evaluated again, because `evaluation` has changed",
            flush=True,
        )
        (directory / stages.RESULT_FILE).unlink(missing_ok=True)
        (directory / stages.SETTINGS_FILE).unlink()
        return
    stale = work.directory / "stale"
    make_folder(stale)
    numbers = [path.name.rpartition("_") for path in stale.iterdir()] if stale.is_dir() else []
    taken = sum(stage == name for stage, _, _ in numbers)
    move_tree(directory, stale / f"{name}_{taken + 1}")
    print(f"{name}: has another config; moved to {stale / f'{name}_{taken + 1}'}", flush=True)
