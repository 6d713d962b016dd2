"""What a training ends with: its parameters, or the record that it stopped itself."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from launch.parts.endings import Interrupted, Stop, Stopped, read_stop
from launch.parts.stages import Workspace
from train.checkpoint import Checkpointer
from train.loop import Result
from train.state import TrainState


def finished(work: Workspace, directory: Path, result: Result) -> Any:
    """Returns the parameters of a complete training.

    Raises:
      Interrupted: a signal ended the training.
      Stopped: the training stopped itself; this also records the stop in its directory.
    """
    if result.interrupted:
        raise Interrupted(result.stop_reason)
    reason = result.stop_reason
    if reason is None and not _finite(result.state.params):
        reason = "its weights are not finite"
    if reason is None:
        return result.state.params
    stop = Stop(reason, result.step, result.good_step)
    if jax.process_index() == 0:
        stop.write(directory)
    raise Stopped(stop.message(directory, work.stage_of(directory)))


def refuse_stopped(work: Workspace, directory: Path) -> None:
    """Raises `Stopped` if a training stopped itself in an earlier run, unless that is accepted."""
    stop, stage = read_stop(directory), work.stage_of(directory)
    if stop is not None and (stage not in work.accept_stopped or stop.good_step is None):
        raise Stopped(stop.message(directory, stage))


def last_good(
    work: Workspace, directory: Path, stop: Stop, checkpointer: Checkpointer, like: TrainState
) -> Any:
    """Returns the last good checkpoint's parameters of a training that stopped itself."""
    params = checkpointer.restore(like, stop.good_step)[0].params
    if not _finite(params):
        raise Stopped(
            f"the weights of checkpoint {stop.good_step} in {directory} are not finite either: give"
            " another config and another --workdir"
        )
    print(
        f"{directory.name}: stopped at step {stop.step} ({stop.reason}); the checkpoint of step"
        f" {stop.good_step} is taken, as --accept_stopped={work.stage_of(directory)} says",
        flush=True,
    )
    return params


def _finite(params: Any) -> bool:
    def all_finite(params):
        return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()

    return bool(jax.jit(all_finite)(params))
