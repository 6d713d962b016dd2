"""Names the published GRPO variants, each as one setting of advantages, aggregation and loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rl.advantages import AGGREGATIONS, AdvantageConfig
from rl.losses import PolicyLossConfig


@dataclasses.dataclass(frozen=True)
class Variant:
    """An RL algorithm: all its settings between the rewards and the gradient.

    Attributes:
      advantage: how rewards become advantages.
      aggregation: how token losses are averaged (`rl.advantages.token_weights`).
      loss: the policy loss.
      dynamic_sampling: whether sampling goes on until the batch is full of groups with both right
        and wrong completions (`rl.advantages.informative_groups`).

    Raises:
      ValueError: the aggregation is unknown.
    """

    advantage: AdvantageConfig
    aggregation: str
    loss: PolicyLossConfig
    dynamic_sampling: bool = False

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(
                f"unknown aggregation {self.aggregation!r}: choose one of {', '.join(AGGREGATIONS)}"
            )


VARIANTS = {
    # DeepSeekMath (arXiv:2402.03300, eq. 3 and 4), with the KL coefficient of DeepSeek-R1
    # (arXiv:2501.12948); TRL's default is beta = 0.
    "grpo": Variant(AdvantageConfig("grpo"), "sequence_mean", PolicyLossConfig(beta=0.001)),
    # "Understanding R1-Zero-Like Training" (arXiv:2503.20783): neither std nor length in the
    # denominator.
    "dr_grpo": Variant(AdvantageConfig("dr_grpo"), "constant", PolicyLossConfig()),
    # DAPO (arXiv:2503.14476); its fourth part, overlong shaping, is the reward
    # `rl.rewards.overlong`.
    "dapo": Variant(
        AdvantageConfig("grpo"),
        "token_mean",
        PolicyLossConfig(clip_high=0.28),
        dynamic_sampling=True,
    ),
    # GSPO (arXiv:2507.18071, section 5.1 for the clipping range).
    "gspo": Variant(
        AdvantageConfig("grpo"),
        "sequence_mean",
        PolicyLossConfig(ratio_level="sequence", clip_low=3e-4, clip_high=4e-4),
    ),
    # CISPO (MiniMax-M1, arXiv:2506.13585): no lower bound; the cap of 5 is that of ScaleRL
    # (arXiv:2510.13786).
    "cispo": Variant(
        AdvantageConfig("grpo"),
        "token_mean",
        PolicyLossConfig(objective="cispo", clip_low=1.0, clip_high=4.0),
    ),
    # MaxRL (arXiv:2602.02710). Its gradient is of the log-probability of whole completions, so no
    # length stands in the denominator.
    "maxrl": Variant(AdvantageConfig("maxrl"), "constant", PolicyLossConfig()),
    # GRPO with the masks of IcePop (Ring-1T, arXiv:2510.18855, section on IcePop: 0.5 and 5).
    "icepop": Variant(
        AdvantageConfig("grpo"),
        "token_mean",
        PolicyLossConfig(tis_cap=5.0, mask_low=0.5, mask_high=5.0),
    ),
    # GRPO on sequences whose whole importance weight is at most 2 (sequence-level masked importance
    # sampling; verl's documentation of rollout correction).
    "masked_is": Variant(
        AdvantageConfig("grpo"),
        "token_mean",
        PolicyLossConfig(tis_cap=2.0, mask_high=2.0, correction_level="sequence_product"),
    ),
    # "Back to Basics" (arXiv:2402.14740), with TRL's clipping and KL coefficient.
    "rloo": Variant(
        AdvantageConfig("rloo"),
        "sequence_mean",
        PolicyLossConfig(
            ratio_level="sequence_product", beta=0.05, kl_estimator="k1", kl_in="reward"
        ),
    ),
}


def get_variant(
    name: str,
    advantage: Mapping[str, Any] | None = None,
    aggregation: str | None = None,
    loss: Mapping[str, Any] | None = None,
    dynamic_sampling: bool | None = None,
) -> Variant:
    """Returns a named variant with some of its settings changed.

    Args:
      name: a key of `VARIANTS`.
      advantage: `AdvantageConfig` fields to override.
      aggregation: another aggregation; None keeps the variant's.
      loss: `PolicyLossConfig` fields to override.
      dynamic_sampling: another choice; None keeps the variant's.

    Raises:
      ValueError: the name or a field is unknown, or a value is not allowed.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown RL variant {name!r}: choose one of {', '.join(VARIANTS)}")
    variant = VARIANTS[name]
    return Variant(
        advantage=_override(variant.advantage, advantage or {}),
        aggregation=variant.aggregation if aggregation is None else aggregation,
        loss=_override(variant.loss, loss or {}),
        dynamic_sampling=variant.dynamic_sampling if dynamic_sampling is None else dynamic_sampling,
    )


def _override(config, changes):
    fields = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in fields:
            raise ValueError(
                f"{type(config).__name__} has no field {name!r}: its fields are {', '.join(fields)}"
            )
    return dataclasses.replace(config, **changes)
