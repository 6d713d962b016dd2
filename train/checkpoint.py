"""Saves and restores checkpoints: atomic, asynchronous, checksummed; the latest and the best."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from models.host.storage import absolute, is_remote, make_folder, move_tree, remove_tree
from models.manifest import Damaged, check_manifest, write_manifest
from train.optimizer import Optimizer
from train.state import TrainState

# Orbax writes these files after the manifest; a restore does not depend on them.
_WRITTEN_LAST = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Checkpointer:
    """Saves and restores a `TrainState` and the JSON-able state of everything on the host.

    Every process of a job makes a `Checkpointer` with the same arguments, on a shared directory. A
    checkpoint appears under its step number when it is complete; a process that is killed while
    saving leaves none. Each checkpoint holds the checksums of its files (`models.manifest`). A
    damaged one is reported and moved to a folder beside `directory`; the newest good one is used.

    A checkpoint in a remote store has no checksums of ours: the store checks its objects by its
    own, and reading a checkpoint back would take as long as writing it.

    Example:
      with Checkpointer(workdir / "checkpoints", config=dict(config), best_metric="reward") as c:
          c.save(state, {"source": source.state_dict()}, metrics)
          state, host_state = c.restore(abstract_state)
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        config: Mapping[str, Any] | None = None,
        keep: int = 2,
        best_metric: str | None = None,
        best_mode: str = "max",
        say: Callable[[str], None] = print,
        split: Callable[[Any], tuple[Any, Any]] | None = None,
    ):
        """Opens the directory, and moves checkpoints away whose small files are damaged.

        Args:
          directory: created if it does not exist.
          config: JSON-able settings that a resumed run must share with the saved one.
          keep: how many of the latest checkpoints to keep.
          best_metric: also keep the checkpoint with the best value of this metric.
          best_mode: "max" or "min".
          say: called with a line for each damaged checkpoint.
          split: parameters -> (trainable, frozen), such as `Optimizer.split`. If given, frozen
            parameters are not saved; `restore` takes them from `like`, whose arrays must then be
            real. Put their `train.frozen.digest` into `config`.

        Raises:
          Damaged: there are checkpoints, and all are damaged.
          ValueError: `keep` below 1 or an unknown mode.
        """
        if keep < 1:
            raise ValueError(f"keep={keep}: it must be at least 1")
        if best_mode not in ("max", "min"):
            raise ValueError(f"best_mode={best_mode!r} is unknown; choose max or min")
        self.directory = absolute(directory)
        self._config = _plain(config or {})
        self._best_metric, self._sign = best_metric, 1.0 if best_mode == "max" else -1.0
        self._say, self._split = say, split
        self._saving: int | None = None
        self._set_damaged_aside(only_small=True)
        policies: list[Any] = [checkpoint_managers.LatestN(keep)]
        if best_metric is not None:
            policies.append(checkpoint_managers.BestN(get_metric_fn=self._score, n=1))
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                # Makes the manager store metrics.
                best_fn=self._score,
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "host": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the step with the best `best_metric`; None if no checkpoint has that metric."""
        scores = {step: self._score(self.metrics(step)) for step in self._manager.all_steps()}
        scores = {step: score for step, score in scores.items() if score > -math.inf}
        return max(scores, key=lambda step: (scores[step], step)) if scores else None

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the metrics that a checkpoint was saved with."""
        return dict(self._manager.metrics(step) or {})

    def save(
        self,
        state: TrainState,
        host_state: Mapping[str, Any],
        metrics: Mapping[str, float],
        replace: bool = False,
    ) -> None:
        """Saves under `state.step`, in the background; returns once the arrays are copied.

        Does nothing if that step has been saved already, unless it is to `replace` that checkpoint.

        Args:
          state: the state to save.
          host_state: the JSON-able state of everything on the host.
          metrics: finite or not; `best_metric` may be missing, as between evaluations.
          replace: whether to remove a checkpoint of that step first.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            if not replace:
                return
            self.wait()
            self._manager.delete(step)
        host = {"config": self._config, "host_state": dict(host_state)}
        saved = self._saved_part(state)
        args = ocp.args.Composite(state=ocp.args.StandardSave(saved), host=ocp.args.JsonSave(host))
        # JSON has no NaN.
        metrics = {name: float(x) for name, x in metrics.items() if math.isfinite(x)}
        self.wait()  # The manifest of the previous save needs that save's step.
        self._saving = step
        self._manager.save(step, args=args, metrics=metrics)

    def restore(
        self, like: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Restores a checkpoint's state and its host state.

        Args:
          like: arrays or `jax.ShapeDtypeStruct`s with the shapes and shardings to restore in.
          step: the checkpoint; None is the latest that is not damaged.

        Raises:
          Damaged: the checkpoint of `step` is damaged, or all are.
          FileNotFoundError: there is no such checkpoint.
          ValueError: the checkpoint has another model, optimizer or config.
        """
        if step is None:
            self._set_damaged_aside(only_small=False)
            step = self.latest_step()
        elif step in self._manager.all_steps():
            self._check_undamaged(step)
        steps = self._manager.all_steps()
        if step is None or step not in steps:
            wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
            raise FileNotFoundError(f"{self.directory} holds no {wanted}; it has steps {steps}")
        saved_part = self._saved_part(like)
        self._check_fits(saved_part, step)
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))
        self._check_config(host.host["config"], step)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), saved_part
        )
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )
        return self._whole(restored.state, like), host.host["host_state"]

    def set_aside(self, step: int, why: str) -> None:
        """Moves a useless checkpoint out of the way, and says so in a line.

        Raises:
          Damaged: no other checkpoint is left.
        """
        self._move_away(step)
        self._manager.reload()
        self._tell(step, why, sorted(self._manager.all_steps()))

    def wait(self) -> None:
        """Waits until the last save is complete."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the manager's threads."""
        self._manager.close()

    def _saved_part(self, state: TrainState) -> TrainState:
        """Returns the state without the parameters that are not saved."""
        if self._split is None:
            return state
        return dataclasses.replace(state, params=self._split(state.params)[0])

    def _whole(self, restored: TrainState, like: TrainState) -> TrainState:
        """Undoes `_saved_part`."""
        if self._split is None:
            return restored
        params = Optimizer.merge(restored.params, self._split(like.params)[1])
        return dataclasses.replace(restored, params=params)

    def _write_manifest(self) -> None:
        """Writes the manifest of the checkpoint that is being saved.

        Orbax calls this when all files are written, and renames the checkpoint afterwards. So
        every visible checkpoint has its manifest.
        """
        if is_remote(self.directory):
            return
        begin = f"{self._saving}."
        for path in self.directory.iterdir():
            if path.name.startswith(begin) or path.name == str(self._saving):
                write_manifest(path, leave_out=_WRITTEN_LAST)

    def _set_damaged_aside(self, *, only_small: bool) -> None:
        """Moves damaged checkpoints away.

        Before Orbax opens the directory, `only_small` files of all checkpoints are checked, since
        Orbax reads those itself. Before a restore, all files are checked, from the newest
        checkpoint back to the first good one.
        """
        if is_remote(self.directory):
            return
        steps = sorted(
            (int(path.name) for path in self.directory.glob("*") if path.name.isdecimal()),
            reverse=True,
        )
        damaged: dict[int, str] = {}
        if jax.process_index() == 0:
            for step in steps:
                try:
                    self._check_undamaged(step, only_small)
                    if not only_small:
                        break
                except Damaged as error:
                    damaged[step] = str(error)
                    self._move_away(step)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoints of {self.directory}")
        if not only_small:
            self._manager.reload()
        for i, (step, why) in enumerate(damaged.items()):
            good = [each for each in steps if each not in damaged]
            if good or i == len(damaged) - 1:
                self._tell(step, why, good)

    def _check_undamaged(self, step: int, only_small: bool = False) -> None:
        if is_remote(self.directory):
            return
        check_manifest(self.directory / str(step), only_small=only_small, leave_out=_WRITTEN_LAST)

    def _move_away(self, step: int) -> None:
        if jax.process_index() != 0:
            return
        place = self.directory.with_name(f"{self.directory.name}_damaged") / str(step)
        remove_tree(place)
        make_folder(place.parent)
        move_tree(self.directory / str(step), place)

    def _tell(self, step: int, why: str, good: list[int]) -> None:
        place = self.directory.with_name(f"{self.directory.name}_damaged")
        if not good:
            raise Damaged(
                f"checkpoint {step} is not used: {why}. No other checkpoint is left in"
                f" {self.directory} (damaged ones are in {place}): start the same command once more"
                " to train from the beginning"
            )
        self._say(
            f"checkpoint {step} is not used: {why}. Checkpoint {max(good)} is used instead; the"
            f" damaged one is in {place}"
        )

    def _score(self, metrics: Mapping[str, float]) -> float:
        value = None if self._best_metric is None else metrics.get(self._best_metric)
        return -math.inf if value is None else self._sign * value

    def _check_fits(self, like: TrainState, step: int) -> None:
        saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        wanted = _shapes({f.name: getattr(like, f.name) for f in dataclasses.fields(like)})
        for path in sorted(saved.keys() | wanted.keys(), key=lambda p: (p[0] != "params", p)):
            if saved.get(path) != wanted.get(path):
                have, need = (shapes.get(path, "absent") for shapes in (saved, wanted))
                raise ValueError(
                    f"checkpoint {self.directory / str(step)} is of another"
                    f" {'model' if path[0] == 'params' else 'optimizer'}: {'/'.join(path)} is"
                    f" {have} there and {need} in this run; use its config, or another directory"
                )

    def _check_config(self, saved: Mapping[str, Any], step: int) -> None:
        saved, wanted = _leaves(saved), _leaves(self._config)
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                have, need = (c.get(name, "absent") for c in (saved, wanted))
                raise ValueError(
                    f"checkpoint {self.directory / str(step)} is of a run with {name}={have}, this"
                    f" one has {need}; use its config, or another directory"
                )


def _shapes(tree: Any) -> dict[tuple[str, ...], str]:
    """Returns dtype and shape of every array by path, for live trees and orbax metadata."""

    def name(key):
        for attribute in ("key", "idx", "name"):
            if hasattr(key, attribute):
                return str(getattr(key, attribute))
        raise TypeError(f"unexpected key {key!r}")

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {
        tuple(name(key) for key in path): f"{np.dtype(x.dtype).name}{list(x.shape)}"
        for path, x in leaves
        if hasattr(x, "shape")
    }


def _plain(value: Any) -> Any:
    """Returns the value in the form that JSON gives back: tuples as lists, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return value


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping):
        return {prefix: config}
    flat = {}
    for key, value in config.items():
        flat |= _leaves(value, f"{prefix}.{key}" if prefix else key)
    return flat
