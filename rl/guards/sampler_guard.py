"""Stops a run if the log-probs of its sampler and its trainer differ by more than rounding.

In the first update on fresh rollouts, the trainer has the weights that sampled them, so the two
must agree.
"""

from collections.abc import Mapping
from typing import Any

from models.decoding.self_check import mismatch


class SamplerGuard:
    """Compares KL(sampler || trainer) in the first update of each iteration with a bound.

    It watches `first_sampler_kl` and `first_sampler_gap_max` of `rl.losses.policy_loss`.

    Args:
      dtype: the type in which the model computes, such as "float32", or another key of
        `models.decoding.self_check.MAX_KL`; it decides the rounding.
    """

    def __init__(self, dtype: str):
        self._dtype = dtype

    def update(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Takes the metrics of one iteration; returns why the run should stop, or None."""
        kl, gap = metrics["first_sampler_kl"], metrics["first_sampler_gap_max"]
        reason = mismatch(kl, gap, self._dtype)
        return f"step {step}: {reason}" if reason else None

    def state_dict(self) -> dict[str, Any]:
        """Returns an empty dict, because each iteration is judged by itself."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing, because the guard has no state."""
