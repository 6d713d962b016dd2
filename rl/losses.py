"""Computes the policy-gradient losses of the GRPO family, as one function of token log-probs.

All arrays are `[rows, length]` and aligned to the predicted token; several sequences may share a
row (`segment_ids`). The loss is `sum(loss_weights * token_loss)`. The host decides how tokens are
averaged (`rl.advantages.token_weights`), so packing, gradient accumulation and data sharding are
exact plain sums.

`rl.variants` names the settings of the published algorithms.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from rl.kl import KL_ESTIMATORS, MAX_LOG_RATIO, kl_estimate

OBJECTIVES = ("clip", "cispo")
RATIO_LEVELS = ("token", "sequence", "sequence_product")


@dataclasses.dataclass(frozen=True)
class PolicyLossConfig:
    """The settings of `policy_loss`.

    With ratio r = policy / old policy and advantage A, the loss of a token is

    * `clip`:  -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)    (PPO, arXiv:1707.06347, eq. 7)
    * `cispo`: -stop_gradient(clip(r, ...)) A log policy    (MiniMax-M1, arXiv:2506.13585, eq. 4-5)

    Attributes:
      objective: `clip` or `cispo`.
      ratio_level: `token`; `sequence`, the geometric mean over the sequence's trained tokens (GSPO,
        arXiv:2507.18071, eq. 7); or `sequence_product`, which treats the completion as one action
        (RLOO). With a sequence-level ratio, each token gets the surrogate of its sequence, so it
        should be used with the aggregation `sequence_mean`.
      clip_low: lower clipping range; 1 or more never clips, because ratios are positive.
      clip_high: upper clipping range; DAPO's clip-higher is `clip_high > clip_low`. TRL's
        `epsilon_high` for CISPO is the cap itself, which is 1 + clip_high here.
      dual_clip: if set (> 1), a token's loss is at most `dual_clip * |A|` where A < 0
        (arXiv:1912.09729). No preset sets it; verl sets it to 3 by default.
      beta: KL coefficient; 0 needs no reference policy.
      kl_estimator: `k1`, `k2` or `k3` (`rl.kl`).
      kl_in: `loss` adds `beta * KL_t` to each token's loss. `reward` adds nothing to the loss;
        `rl.advantages.subtract_kl` then puts the KL into the rewards before advantages are
        computed.
      tis_cap: if set, the surrogate of each token is multiplied by min(w, cap), where w = old
        policy / behaviour policy. This corrects for a sampler whose probabilities differ from the
        trainer's, or whose weights are older (truncated importance sampling;
        https://fengyao.notion.site/off-policy-rl). It needs `old_logprobs`. The KL term is not
        multiplied, as in TRL and verl.
      mask_low, mask_high: if set, tokens whose w lies outside these bounds have no surrogate.
        IcePop (Ring-1T, arXiv:2510.18855) masks single tokens outside [0.5, 5] and multiplies the
        others by w. Masked importance sampling drops whole sequences with w above a bound.
      correction_level: what w is a ratio of, one of `RATIO_LEVELS`. `sequence_product` is the exact
        weight of a sequence; its geometric mean, `sequence`, does not grow with length.

    Raises:
      ValueError: a value is unknown or out of range, or two settings contradict each other.
    """

    objective: str = "clip"
    ratio_level: str = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    beta: float = 0.0
    kl_estimator: str = "k3"
    kl_in: str = "loss"
    tis_cap: float | None = None
    mask_low: float | None = None
    mask_high: float | None = None
    correction_level: str = "token"

    @property
    def corrects(self) -> bool:
        """Whether the loss needs `old_logprobs` beside those of the sampler."""
        return any(x is not None for x in (self.tis_cap, self.mask_low, self.mask_high))

    def __post_init__(self) -> None:
        for field, choices in (
            ("objective", OBJECTIVES),
            ("ratio_level", RATIO_LEVELS),
            ("correction_level", RATIO_LEVELS),
            ("kl_estimator", KL_ESTIMATORS),
            ("kl_in", ("loss", "reward")),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"{field} is {getattr(self, field)!r}: choose one of {', '.join(choices)}"
                )
        for field in ("clip_low", "clip_high", "beta"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"{field} is {getattr(self, field)}: give at least 0")
        if self.dual_clip is not None and (self.objective != "clip" or not self.dual_clip > 1):
            raise ValueError(
                f"dual_clip={self.dual_clip} needs objective='clip' and a value above 1"
            )
        if self.tis_cap is not None and not self.tis_cap > 0:
            raise ValueError(f"tis_cap is {self.tis_cap}: give a number above 0")
        if self.mask_low is not None and not 0 <= self.mask_low < 1:
            raise ValueError(f"mask_low is {self.mask_low}: give a number from 0 to below 1")
        if self.mask_high is not None and not self.mask_high > 1:
            raise ValueError(f"mask_high is {self.mask_high}: give a number above 1")
        if self.correction_level != "token" and not self.corrects:
            raise ValueError(
                f"correction_level={self.correction_level!r} corrects nothing: set tis_cap,"
                " mask_low or mask_high too"
            )
        if self.kl_estimator == "k1" and self.kl_in == "loss":
            raise ValueError(
                "kl_estimator='k1' with kl_in='loss': the on-policy gradient of k1 is zero in"
                " expectation, so it penalises nothing: use k2 or k3, or kl_in='reward'"
            )


def policy_loss(
    logprobs: jax.Array, batch: Mapping[str, jax.Array], config: PolicyLossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the loss of one (micro-)batch and its metrics.

    Args:
      logprobs: `[rows, length]`, log-probs of `tokens` under the policy in training.
      batch: dict of `[rows, length]` arrays. A token is trained if its `loss_weights` > 0. All
        other tokens have weight 0, and there `logprobs` and all other float arrays may hold
        anything, even infinities and NaN.
        - `segment_ids`: int, 0 on padding, 1 .. length for the sequences of the row.
        - `loss_weights`, `advantages`: see `rl.advantages`.
        - `behaviour_logprobs`: log-probs under the sampler when it drew the tokens.
        - `old_logprobs` (optional): log-probs that the trainer recomputes before its first update
          on these rollouts. If given, this is the old policy of the ratio; otherwise the behaviour
          policy is.
        - `reference_logprobs`: needed if `beta` > 0.
      config: the settings.

    Returns:
      `(loss, metrics)`, float32 scalars. The metrics of several micro-batches or devices combine
        exactly: those that end in `_max` by their maximum, all others by their sum, as `train.step`
        does. `mean_metrics` later turns sums into means over tokens.
        - `tokens`: the number of trained tokens. The following are sums over these tokens:
        - `ratio` (with `ratio_max`), `clip_high` and `clip_low` (1 where clipping removed the
          gradient, or for `cispo` bounded the weight), `dual_clip`;
        - `old_kl`: KL(old policy || policy) (k3), which says how far the updates have moved;
        - `first_sampler_kl`: KL(behaviour policy || policy) (k3), and `first_sampler_gap_max`, the
          largest difference of a log-prob from the sampler's. In the first update on fresh
          rollouts they say how far sampler and trainer differ; `rl.guards` watches them;
        - `reference_kl`: KL(policy || reference) (k3), if the batch has `reference_logprobs`;
        - `tis_weight`, and `tis_truncated`: 1 where the cap was reached; `masked`: 1 where
          `mask_low` or `mask_high` left the token out;
        - `nll`: -log policy, whose mean on fresh samples estimates the entropy.
        - `policy_loss`, `kl_loss`: the parts of the loss, already weighted by `loss_weights`.

    Raises:
      ValueError: the batch lacks an array that the config needs.
    """
    weights = jnp.asarray(batch["loss_weights"], jnp.float32)
    trained = weights > 0

    def masked(x):
        # Masking comes before any arithmetic: an infinity in padding would otherwise reach the
        # gradient as 0 * inf.
        return jnp.where(trained, jnp.asarray(x, jnp.float32), 0.0)

    def total(x):
        return jnp.sum(jnp.where(trained, x, 0.0), dtype=jnp.float32)

    logprobs = masked(logprobs)
    advantages = masked(batch["advantages"])
    behaviour = masked(batch["behaviour_logprobs"])
    old = masked(batch["old_logprobs"]) if "old_logprobs" in batch else behaviour

    log_ratio = _log_ratio(logprobs - old, trained, batch["segment_ids"], config.ratio_level)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high)
    above, below = ratio > 1.0 + config.clip_high, ratio < 1.0 - config.clip_low
    metrics = {
        "tokens": total(1.0),
        "ratio": total(ratio),
        "ratio_max": jnp.max(jnp.where(trained, ratio, 0.0)),
    }

    if config.objective == "clip":
        surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
        # Clipping acts only where the ratio has already moved in the direction of the advantage.
        above, below = above & (advantages > 0), below & (advantages < 0)
        if config.dual_clip is not None:
            floor = config.dual_clip * advantages
            metrics["dual_clip"] = total((advantages < 0) & (surrogate < floor))
            surrogate = jnp.where(advantages < 0, jnp.maximum(surrogate, floor), surrogate)
    else:
        surrogate = jax.lax.stop_gradient(clipped) * advantages * logprobs
    metrics |= {"clip_high": total(above), "clip_low": total(below)}

    if config.corrects:
        if "old_logprobs" not in batch:
            raise ValueError(
                "tis_cap or a mask is set but the batch has no old_logprobs: let the trainer"
                " recompute them, or unset tis_cap, mask_low and mask_high"
            )
        correction = jnp.exp(
            _log_ratio(old - behaviour, trained, batch["segment_ids"], config.correction_level)
        )
        if config.tis_cap is not None:
            weight = jnp.minimum(correction, config.tis_cap)
            metrics["tis_truncated"] = total(correction > config.tis_cap)
            metrics["tis_weight"] = total(weight)
            surrogate = weight * surrogate
        if config.mask_low is not None or config.mask_high is not None:
            outside = jnp.zeros(correction.shape, bool)
            if config.mask_low is not None:
                outside |= correction < config.mask_low
            if config.mask_high is not None:
                outside |= correction > config.mask_high
            metrics["masked"] = total(outside)
            surrogate = jnp.where(outside, 0.0, surrogate)

    loss = metrics["policy_loss"] = -total(weights * surrogate)
    if "reference_logprobs" in batch:
        reference = masked(batch["reference_logprobs"])
        metrics["reference_kl"] = total(kl_estimate(logprobs, reference, "k3"))
    if config.beta > 0 and config.kl_in == "loss":
        if "reference_logprobs" not in batch:
            raise ValueError(
                f"beta is {config.beta} but the batch has no reference_logprobs: compute them, or"
                " set beta=0"
            )
        kl = kl_estimate(logprobs, reference, config.kl_estimator)
        metrics["kl_loss"] = config.beta * total(weights * kl)
        loss += metrics["kl_loss"]

    metrics["old_kl"] = total(kl_estimate(old, logprobs, "k3"))
    metrics["first_sampler_kl"] = total(kl_estimate(behaviour, logprobs, "k3"))
    metrics["first_sampler_gap_max"] = jnp.max(jnp.abs(logprobs - behaviour))
    metrics["nll"] = -total(logprobs)
    return loss, jax.lax.stop_gradient(metrics)


def mean_metrics(metrics: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Turns the sums over tokens of a whole batch into means, for `make_train_step(finalize=...)`.

    `tokens`, maxima and the parts of the loss stay as they are. Any other metric that the caller
    has added counts as a sum over tokens.
    """
    as_is = ("tokens", "policy_loss", "kl_loss")
    tokens = jnp.maximum(metrics["tokens"], 1.0)
    return {
        name: x if name in as_is or name.endswith("_max") else x / tokens
        for name, x in metrics.items()
    }


def _log_ratio(token_log_ratio, trained, segment_ids, level):
    """Returns log(policy / old policy) of each token or of its sequence, `[rows, length]`."""
    if level == "token":
        return _clip_log_ratio(token_log_ratio)
    # The ids of a row lie in 0 .. length, because every sequence has at least one token.
    num_segments = segment_ids.shape[1] + 1
    sum_by_segment = jax.vmap(lambda x, ids: jax.ops.segment_sum(x, ids, num_segments)[ids])
    log_ratio = sum_by_segment(token_log_ratio, segment_ids)
    if level == "sequence":
        log_ratio /= jnp.maximum(sum_by_segment(trained.astype(jnp.float32), segment_ids), 1.0)
    return _clip_log_ratio(log_ratio)


def _clip_log_ratio(log_ratio):
    # Beyond the limit, the ratio is constant and its gradient 0, never inf * 0. verl clips at 20
    # too.
    return jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
