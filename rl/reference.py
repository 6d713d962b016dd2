"""A reference policy that follows the one that is trained, every so many steps.

DeepSeek-R1 (arXiv:2501.12948, B.4) replaces it every 400 steps, so that the KL term holds each
stretch of a long run together without tying its end to its beginning.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from models.manifest import Damaged, check_manifest, write_manifest


class ReferenceRenewal:
    """When the reference becomes the current policy, and where it is kept for a resumed run.

    Every process of a job makes one, with the same arguments, on a directory they share.

    Args:
      every: optimizer steps, counted from the first one of the run.
      directory: for a copy of the weights at each renewal that a resumed run may need.
      horizon: steps that a resumed run may go back.

    Attributes:
      step: at which the reference was taken; 0 for the one that the run began with.
    """

    def __init__(self, every: int, directory: str | os.PathLike, horizon: int):
        if every < 1:
            raise ValueError(f"reference_every={every}: give a number of steps from 1, or None")
        self.step = 0
        self._every, self._horizon = every, horizon
        self._directory = Path(directory).absolute()

    def renewed(self, reference: Any, params: Any, step: int) -> Any:
        """The reference for rollouts at `step`: `reference`, or a copy of `params` if it is due."""
        due = step - step % self._every
        if due <= self.step:
            return reference
        reference = jax.tree.map(lambda x: x.copy(), params)
        with ocp.StandardCheckpointer() as checkpointer:
            # One that is there is from a run that was killed before it saved a checkpoint.
            checkpointer.save(self._directory / str(due), reference, force=True)
        self.step = due
        if jax.process_index() == 0:
            write_manifest(self._directory / str(due))
            # At `step - horizon`, the reference was younger than `every` steps.
            oldest = step - self._horizon - self._every
            for old in self._directory.iterdir():
                if old.name.isdecimal() and int(old.name) <= oldest:
                    shutil.rmtree(old, ignore_errors=True)
        return reference

    def state_dict(self) -> dict[str, int]:
        """To be saved with a checkpoint."""
        return {"reference_step": self.step}

    def restored(self, reference: Any, state: dict[str, int]) -> Any:
        """The reference that was in use when `state` was saved.

        Args:
          reference: the one that the run began with.

        Raises:
          Damaged: its weights are gone, or are not what they were; an older checkpoint than that
            of `state` may do.
        """
        self.step = int(state["reference_step"])
        if self.step == 0:
            return reference
        place = self._directory / str(self.step)
        if not place.is_dir():
            raise Damaged(f"its reference policy {place} is gone")
        check_manifest(place)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), reference
        )
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(place, like)
