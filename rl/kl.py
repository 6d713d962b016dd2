"""Estimates KL(policy || reference) per token, from the log-probs of sampled tokens.

Schulman 2020, http://joschu.net/blog/kl-approx.html.

With x ~ policy and log r = log reference(x) - log policy(x):

    ====  =============  =====================================================================
    name  value          properties
    ====  =============  =====================================================================
    `k1`  -log r         Unbiased, high variance, may be negative. Only for the reward: as a
                         loss term its on-policy gradient, E[grad log policy], is zero in
                         expectation.
    `k2`  (log r)^2 / 2  Biased value, but its on-policy gradient as a loss term is that of
                         the KL.
    `k3`  r - 1 - log r  Unbiased, never negative, low variance: the KL term of GRPO.
    ====  =============  =====================================================================

TRL's GRPO uses k3 in the loss and its RLOO k1 in the reward; verl calls them `kl`, `mse` and
`low_var_kl`.
"""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)

KL_ESTIMATORS = ("k1", "k2", "k3")

# exp(20) = 4.9e8. A larger log-ratio is a fault and no policy; at 88 it would overflow float32.
MAX_LOG_RATIO = 20.0


def kl_estimate(logprobs: Array, reference_logprobs: Array, estimator: str) -> Array:
    """Estimates the KL of each token.

    Args:
      logprobs: log-probs of the sampled tokens under the policy, any shape; NumPy or JAX.
      reference_logprobs: log-probs of the same tokens under the reference policy.
      estimator: one of `KL_ESTIMATORS`.

    Returns:
      An array of the shape and kind of `logprobs`, in nats.

    Raises:
      ValueError: the estimator is unknown.
    """
    log_ratio = reference_logprobs - logprobs
    xp = log_ratio.__array_namespace__()
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    if estimator == "k3":
        log_ratio = xp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        return xp.expm1(log_ratio) - log_ratio
    raise ValueError(
        f"unknown KL estimator {estimator!r}: choose one of {', '.join(KL_ESTIMATORS)}"
    )
