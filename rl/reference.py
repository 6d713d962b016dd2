"""Holds the reference policy of a KL term, and replaces it by the policy at regular steps.

A reference may hold some of the parameters only, those that training changes; it shares the others
with the policy. With LoRA it holds new adapters, which change nothing, and no second copy of the
weights.

DeepSeek-R1 (arXiv:2501.12948, B.4) replaces it every 400 steps. So the KL term limits the change
within each stretch of a long run, but not between its beginning and its end.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from models.host.storage import absolute, is_remote, remove_tree
from models.manifest import Damaged, check_manifest, write_manifest


def completed(reference: Any, params: Any) -> Any:
    """Returns all parameters of the reference; those that it lacks are the policy's `params`."""
    return unflatten_dict(flatten_dict(params) | flatten_dict(reference))


def copied(params: Any, like: Any) -> Any:
    """Returns copies of the parameters that `like` has too."""
    wanted = flatten_dict(like)
    return unflatten_dict(
        {path: x.copy() for path, x in flatten_dict(params).items() if path in wanted}
    )


class ReferenceRenewal:
    """Decides when the reference becomes the current policy, and saves it for a resumed run.

    Every process of a job creates one with the same arguments, on a directory that they share.

    Args:
      every: the optimizer steps between renewals, counted from the first step of the run.
      directory: gets a copy of the weights of each renewal that a resumed run may need.
      horizon: the number of steps that a resumed run may go back.

    Attributes:
      step: the step at which the reference was taken; 0 for the initial one.

    Raises:
      ValueError: `every` is below 1.
    """

    def __init__(self, every: int, directory: str | os.PathLike[str], horizon: int):
        if every < 1:
            raise ValueError(
                f"reference_every={every}: give at least 1 step, or None for no renewal"
            )
        self.step = 0
        self._every, self._horizon = every, horizon
        self._directory = absolute(directory)

    def renewed(self, reference: Any, params: Any, step: int) -> Any:
        """Returns `reference`, or a copy of its part of `params` if a renewal is due at `step`.

        Args:
          reference: the current reference, which may lack parameters that training keeps.
          params: the weights of the trained policy.
          step: the step of the next rollouts.
        """
        due = step - step % self._every
        if due <= self.step:
            return reference
        reference = copied(params, reference)
        with ocp.StandardCheckpointer() as checkpointer:
            # An existing copy is from a run that was killed before it saved a checkpoint.
            checkpointer.save(self._directory / str(due), reference, force=True)
        self.step = due
        if jax.process_index() == 0:
            if not is_remote(self._directory):  # A store has checksums of its own.
                write_manifest(self._directory / str(due))
            # A run that goes back to `step - horizon` needs a reference that was less than
            # `every` steps old at that time.
            oldest = step - self._horizon - self._every
            for old in self._directory.iterdir():
                if old.name.isdecimal() and int(old.name) <= oldest:
                    remove_tree(old)
        return reference

    def state_dict(self) -> dict[str, int]:
        """Returns the state to save with a checkpoint."""
        return {"reference_step": self.step}

    def restored(self, reference: Any, state: Mapping[str, int]) -> Any:
        """Returns the reference that was in use when `state` was saved.

        Args:
          reference: the reference at the beginning of the run.
          state: what `state_dict` returned.

        Raises:
          Damaged: its weights are gone or have changed; an older checkpoint may still work.
        """
        self.step = int(state["reference_step"])
        if self.step == 0:
            return reference
        place = self._directory / str(self.step)
        if not place.is_dir():
            raise Damaged(f"its reference policy {place} is gone")
        if not is_remote(place):
            check_manifest(place)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), reference
        )
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(place, like)
