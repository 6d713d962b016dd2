"""Checkpoints of a run: atomic, asynchronous, the latest few and the best; and what they fit."""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from train.state import TrainState


class Checkpointer:
    """Saves and restores a `TrainState` and the JSON-able state of everything on the host.

    Every process of a job makes one, with the same arguments, on a directory they share. A
    checkpoint appears under its step number when it is complete; a process that is killed while
    saving leaves none.

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
    ):
        """Args:
        directory: created where it does not exist.
        config: JSON-able settings that a resumed run must share with the saved one.
        keep: how many of the latest checkpoints to keep.
        best_metric: keep the checkpoint with the best value of this metric too.
        best_mode: "max" or "min".

        Raises:
          ValueError: `keep` below 1 or an unknown mode.
        """
        if keep < 1:
            raise ValueError(f"keep={keep}: at least the latest checkpoint must be kept")
        if best_mode not in ("max", "min"):
            raise ValueError(f"best_mode={best_mode!r} is unknown; choose max or min")
        self.directory = Path(directory).absolute()
        self._config = _plain(config or {})
        self._best_metric, self._sign = best_metric, 1.0 if best_mode == "max" else -1.0
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
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "host": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The checkpoint with the best `best_metric`; None where none has one."""
        scores = {step: self._score(self.metrics(step)) for step in self._manager.all_steps()}
        scores = {step: score for step, score in scores.items() if score > -math.inf}
        return max(scores, key=lambda step: (scores[step], step)) if scores else None

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics that a checkpoint was saved with."""
        return dict(self._manager.metrics(step) or {})

    def save(
        self, state: TrainState, host_state: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Saves under `state.step`, in the background; returns once the arrays are copied.

        Does nothing where that step has been saved already.

        Args:
          host_state: JSON-able.
          metrics: finite or not; `best_metric` may be missing, as between evaluations.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        host = {"config": self._config, "host_state": dict(host_state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host)
        )
        # JSON has no NaN.
        metrics = {name: float(x) for name, x in metrics.items() if math.isfinite(x)}
        self._manager.save(step, args=args, metrics=metrics)

    def restore(
        self, like: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """A checkpoint's state, in the shapes and shardings of `like`, and its host state.

        Args:
          like: arrays or `jax.ShapeDtypeStruct`s.
          step: None for the latest.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: it is of another model, optimizer or config.
        """
        steps = self._manager.all_steps()
        step = self.latest_step() if step is None else step
        if step not in steps:
            wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
            raise FileNotFoundError(f"{self.directory} holds no {wanted}; it has steps {steps}")
        self._check_fits(like, step)
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))
        self._check_config(host.host["config"], step)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )
        return restored.state, host.host["host_state"]

    def wait(self) -> None:
        """Returns when the last save is complete."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the manager's threads."""
        self._manager.close()

    def _score(self, metrics: Mapping[str, float]) -> float:
        value = metrics.get(self._best_metric)
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
    """dtype and shape of every array by path, the same for live trees and orbax metadata."""

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
    """As JSON gives it back: tuples as lists, keys as text."""
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
