"""The published GRPO variants, each as one named setting of advantages, aggregation and loss."""

import dataclasses

from rl.advantages import AGGREGATIONS, AdvantageConfig
from rl.losses import PolicyLossConfig


@dataclasses.dataclass(frozen=True)
class Variant:
    """An RL algorithm, as far as it is decided between the rewards and the gradient.

    Attributes:
      advantage: how rewards become advantages.
      aggregation: how token losses are averaged (`rl.advantages.token_weights`).
      loss: the policy loss.
      dynamic_sampling: sample on until the batch is full of groups that are neither all right nor
        all wrong (`rl.advantages.informative_groups`).
    """

    advantage: AdvantageConfig
    aggregation: str
    loss: PolicyLossConfig
    dynamic_sampling: bool = False

    def __post_init__(self):
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
    # "Back to Basics" (arXiv:2402.14740), with TRL's clipping and KL coefficient.
    "rloo": Variant(
        AdvantageConfig("rloo"),
        "sequence_mean",
        PolicyLossConfig(
            ratio_level="sequence_product", beta=0.05, kl_estimator="k1", kl_in="reward"
        ),
    ),
}


def get_variant(name, advantage=None, aggregation=None, loss=None, dynamic_sampling=None):
    """Looks a variant up and changes some of its settings.

    Args:
      name: a key of `VARIANTS`.
      advantage: mapping of `AdvantageConfig` fields to override.
      aggregation: another aggregation.
      loss: mapping of `PolicyLossConfig` fields to override.
      dynamic_sampling: another choice.

    Returns:
      A `Variant`.

    Raises:
      ValueError: unknown name, unknown field or forbidden value.
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
