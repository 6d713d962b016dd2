"""Per-token estimators of KL(policy || reference) from the log-probs of sampled tokens.

Schulman 2020, http://joschu.net/blog/kl-approx.html.

With x ~ policy and log r = log reference(x) - log policy(x):

====  =============  ===========================================================================
name  value          properties
====  =============  ===========================================================================
`k1`  -log r         Unbiased, high variance, may be negative. For the reward only: as a loss
                     term its on-policy gradient, E[grad log policy], is zero in expectation.
`k2`  (log r)^2 / 2  Biased value, but its on-policy gradient as a loss term is that of the KL.
`k3`  r - 1 - log r  Unbiased, never negative, low variance: the KL term of GRPO.
====  =============  ===========================================================================

TRL's GRPO uses k3 in the loss and its RLOO k1 in the reward; verl calls them `kl`, `mse` and
`low_var_kl`.
"""

KL_ESTIMATORS = ("k1", "k2", "k3")

# exp(20) = 4.9e8: a log-ratio beyond it is a fault, not a policy, and would overflow float32 at 88.
MAX_LOG_RATIO = 20.0


def kl_estimate(logprobs, reference_logprobs, estimator):
    """Estimates the KL of each token.

    Args:
      logprobs: log-probs of the sampled tokens under the policy, any shape; NumPy or JAX.
      reference_logprobs: the same tokens under the reference policy.
      estimator: one of `KL_ESTIMATORS`.

    Returns:
      An array of the shape and kind of `logprobs`, in nats.
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
