"""Stops a run whose sampler and trainer are not one model.

The first update on fresh rollouts is on-policy: the weights that sampled are those that are trained.
There the trainer's log-probs must be the sampler's but for rounding.
"""

from collections.abc import Mapping

from models.decoding.self_check import mismatch


class SamplerGuard:
    """Compares KL(sampler || trainer) of each iteration's first update with a bound.

    It watches `first_sampler_kl` and `first_sampler_gap_max` of `rl.losses.policy_loss`.

    Args:
      dtype: what the model computes in, such as "float32"; rounding depends on it.
    """

    def __init__(self, dtype: str):
        self._dtype = dtype

    def update(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Takes the metrics of one iteration; returns why the run should stop, or None."""
        kl, gap = metrics["first_sampler_kl"], metrics["first_sampler_gap_max"]
        reason = mismatch(kl, gap, self._dtype)
        return f"step {step}: {reason}" if reason else None

    def state_dict(self) -> dict:
        """Nothing: each iteration is judged by itself."""
        return {}

    def load_state_dict(self, state: Mapping) -> None:
        """Takes what `state_dict` gave."""
