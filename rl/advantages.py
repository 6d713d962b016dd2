"""Computes group-relative advantages and the loss weights of tokens, in NumPy on the host.

Rewards are `[prompts, group]`: each prompt has `group` sampled completions, and each completion is
compared only with the others of its prompt, so no value network is needed.

Other libraries differ in these conventions:

* Standard deviation of `grpo`: TRL and verl both divide by the *unbiased* one (`torch.std`); TRL
  adds 1e-4 to it, verl 1e-6. DeepSeekMath (arXiv:2402.03300, section 4.1.2) leaves both open.
* A group of one: verl returns the raw reward. Here it is an error, because there is no baseline.
* Aggregation: `sequence_mean` is TRL's `loss_type="grpo"` and verl's `seq-mean-token-mean`;
  `token_mean` is TRL's `dapo` and verl's `token-mean`; `constant` is TRL's `dr_grpo`, while verl's
  `seq-mean-token-sum-norm` divides by the padded length alone, not by the number of sequences.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from rl.kl import kl_estimate

ESTIMATORS = ("grpo", "dr_grpo", "rloo", "maxrl")
AGGREGATIONS = ("sequence_mean", "token_mean", "constant")

# Rewards closer than this count as equal, because sums of weighted rewards have rounding errors.
REWARD_TOLERANCE = 1e-8


@dataclasses.dataclass(frozen=True)
class AdvantageConfig:
    """The settings that turn rewards into advantages.

    Attributes:
      estimator: `grpo` (subtracts the group's mean and divides by its standard deviation),
        `dr_grpo` (subtracts the mean only; arXiv:2503.20783) or `rloo` (subtracts the mean of the
        other completions; arXiv:2402.14740) or `maxrl` (subtracts the mean and divides by it;
        arXiv:2602.02710). With rewards of 0 and 1, the policy gradient of `maxrl` is an unbiased
        estimate of that of `-sum_k fail@k / k` for k below the group size, which approaches the
        log-likelihood of a right answer: rare successes count most.
      unbiased_std: whether the squared deviations are divided by group - 1, as in TRL and verl,
        instead of group. Only for `grpo`.
      std_epsilon: the number added to the standard deviation (TRL 1e-4, verl 1e-6). Only for
        `grpo`.

    Raises:
      ValueError: the estimator is unknown, or `std_epsilon` is negative.
    """

    estimator: str = "grpo"
    unbiased_std: bool = True
    std_epsilon: float = 1e-4

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"unknown advantage estimator {self.estimator!r}: choose one of"
                f" {', '.join(ESTIMATORS)}"
            )
        if self.std_epsilon < 0:
            raise ValueError(f"std_epsilon is {self.std_epsilon}: give at least 0")


def group_advantages(rewards: ArrayLike, config: AdvantageConfig) -> np.ndarray:
    """Computes the advantage of each completion over the others of its prompt.

    Args:
      rewards: `[prompts, group]`, finite, group >= 2.
      config: the settings.

    Returns:
      float32 `[prompts, group]`; exactly zero in groups of equal rewards.

    Raises:
      ValueError: a reward is not finite, the shape is not `[prompts, group >= 2]`, or a reward is
        negative with `maxrl`.
    """
    rewards = _checked(rewards)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    if config.estimator == "grpo":
        std = rewards.std(axis=1, ddof=1 if config.unbiased_std else 0, keepdims=True)
        advantages = centred / np.where(std > 0, std + config.std_epsilon, 1.0)
    elif config.estimator == "dr_grpo":
        advantages = centred
    elif config.estimator == "maxrl":
        if rewards.min() < 0:
            raise ValueError(
                f"a reward is {rewards.min():g}, but the estimator maxrl divides by the mean reward"
                " of a group: use rewards of at least 0, or another estimator"
            )
        mean = rewards.mean(axis=1, keepdims=True)
        advantages = centred / np.where(mean > 0, mean, 1.0)
    else:
        # r_i - mean of the others = (r_i - mean of all) * group / (group - 1).
        group = rewards.shape[1]
        advantages = centred * (group / (group - 1))
    return np.where(zero_advantage_groups(rewards)[:, None], 0.0, advantages).astype(np.float32)


def zero_advantage_groups(rewards: ArrayLike) -> np.ndarray:
    """Finds the groups that teach nothing because their rewards are equal.

    Args:
      rewards: `[prompts, group]`.

    Returns:
      bool `[prompts]`.
    """
    return np.ptp(_checked(rewards), axis=1) <= REWARD_TOLERANCE


def informative_groups(scores: ArrayLike, limit: int | None = None) -> np.ndarray:
    """Selects the prompts to keep in dynamic sampling (DAPO, arXiv:2503.14476, eq. 11).

    DAPO keeps prompts with both right and wrong completions, and samples more prompts until the
    batch is full. So `scores` is usually the accuracy reward alone (verl:
    `filter_groups.metric="acc"`). With the total reward, a group of wrong answers that differ in
    format would be kept.

    Args:
      scores: `[prompts, group]`.
      limit: the most prompts to keep, the first ones; None for all.

    Returns:
      Indices of the kept prompts, ascending.
    """
    return np.flatnonzero(~zero_advantage_groups(scores))[:limit]


def subtract_kl(
    rewards: ArrayLike,
    logprobs: ArrayLike,
    reference_logprobs: ArrayLike,
    mask: ArrayLike,
    beta: float,
    estimator: str,
) -> np.ndarray:
    """Subtracts the KL from the reward: `reward - beta * sum_t KL_t`.

    This comes before the group's baseline is taken. The KL of a completion is that of the policy
    that sampled it, summed over its tokens. It is part of the maximised objective, so with `k1` the
    gradient of E[reward - beta * KL] is exact in expectation. TRL's RLOO and verl's
    `use_kl_in_reward` do the same. If advantages are then divided by the standard deviation
    (`grpo`), beta has another scale in each group.

    Args:
      rewards: `[prompts, group]`.
      logprobs: `[prompts * group, length]` under the sampling policy, completions in the order of
        `rewards`.
      reference_logprobs: the same under the reference policy.
      mask: bool `[prompts * group, length]`, true on completion tokens; elsewhere log-probs may be
        garbage.
      beta: KL coefficient, per nat.
      estimator: `k1`, `k2` or `k3` (`rl.kl`).

    Returns:
      Penalised rewards, float64 `[prompts, group]`.
    """
    mask = np.asarray(mask, bool)
    logprobs = np.where(mask, np.asarray(logprobs, np.float64), 0.0)
    reference_logprobs = np.where(mask, np.asarray(reference_logprobs, np.float64), 0.0)
    kl = kl_estimate(logprobs, reference_logprobs, estimator).sum(axis=1)
    rewards = np.asarray(rewards, np.float64)
    return rewards - beta * kl.reshape(rewards.shape)


def token_weights(
    lengths: ArrayLike, aggregation: str, max_tokens: int | None = None
) -> np.ndarray:
    """Computes the loss weight of each token.

    The loss of an optimizer step is `sum(weight * token_loss)`. `lengths` must cover the whole
    step, with all micro-batches and hosts. Then their losses and gradients simply add up, however
    the sequences are packed, split or sharded.

        ===============  ===========================  =============================================
        aggregation      weight of a token of seq. i  papers
        ===============  ===========================  =============================================
        `sequence_mean`  1 / (N * length_i)           GRPO, GSPO: mean over sequences of their means
        `token_mean`     1 / sum(lengths)             DAPO, CISPO: every token counts the same
        `constant`       1 / (N * max_tokens)         Dr. GRPO: no length bias
        ===============  ===========================  =============================================

    Args:
      lengths: int `[N]` for N completions; the number of trained tokens of each, with the
        end-of-sequence token. A completion of length 0 is left out of the loss but still counts in
        N.
      aggregation: see the table.
      max_tokens: the generation budget; required by `constant`, and only allowed there.

    Returns:
      float32 `[N]`: the weight of every token of that completion (0 where the length is 0).

    Raises:
      ValueError: the lengths are not counts or exceed `max_tokens`, the aggregation is unknown, or
        `max_tokens` does not go with it.
    """
    lengths = np.asarray(lengths, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or not lengths.any():
        raise ValueError(
            f"lengths must be a vector of counts, not all zero: got {lengths.tolist()}"
        )
    if (aggregation == "constant") != (max_tokens is not None):
        raise ValueError(
            f"max_tokens={max_tokens} with aggregation {aggregation!r}: give max_tokens for"
            " 'constant', and only there"
        )
    if aggregation == "sequence_mean":
        weights = 1.0 / (len(lengths) * np.maximum(lengths, 1))
    elif aggregation == "token_mean":
        weights = np.full(len(lengths), 1.0 / lengths.sum())
    elif aggregation == "constant" and max_tokens is not None:
        if lengths.max() > max_tokens:
            raise ValueError(
                f"a completion has {lengths.max()} tokens, more than max_tokens={max_tokens}:"
                " raise max_tokens"
            )
        weights = np.full(len(lengths), 1.0 / (len(lengths) * max_tokens))
    else:
        raise ValueError(
            f"unknown aggregation {aggregation!r}: choose one of {', '.join(AGGREGATIONS)}"
        )
    return np.where(lengths > 0, weights, 0.0).astype(np.float32)


def _checked(rewards):
    rewards = np.asarray(rewards, np.float64)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {rewards.shape}: expected [prompts, group] with at least 2"
            " completions per group"
        )
    if not np.isfinite(rewards).all():
        prompt, member = np.argwhere(~np.isfinite(rewards))[0]
        raise ValueError(
            f"reward of completion {member} of prompt {prompt} is {rewards[prompt, member]}:"
            " rewards must be finite"
        )
    return rewards
