"""Computes the policy losses explicitly: in float64, one unpacked completion and one token at a
time.

It shares no code with `rl`: it aggregates by explicit division and takes gradients by central
differences.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass
class Completion:
    """One sampled completion; all arrays `[length]`, without prompt and without padding."""

    logprobs: np.ndarray
    old: np.ndarray
    behaviour: np.ndarray
    reference: np.ndarray
    advantage: float


def random_completions(rng, lengths, drift=0.4):
    """`drift`: standard deviation of the policies' log-probs around each other."""
    completions = []
    for length in lengths:
        logprobs = -rng.exponential(1.0, length)
        near = lambda: logprobs + drift * rng.standard_normal(length)
        completions.append(Completion(logprobs, near(), near(), near(), rng.standard_normal()))
    return completions


def kl_token(estimator, logprob, reference):
    if estimator == "k2":
        return (logprob - reference) ** 2 / 2
    ratio = math.exp(reference - logprob)
    return ratio - math.log(ratio) - 1


def surrogate(objective, ratio, frozen_ratio, logprob, advantage, low, high, dual_clip):
    """What is maximised, for one token."""
    if objective == "cispo":
        weight = min(max(frozen_ratio, 1 - low), 1 + high)
        return weight * advantage * logprob
    bounded = min(max(ratio, 1 - low), 1 + high)
    value = min(ratio * advantage, bounded * advantage)
    if dual_clip is not None and advantage < 0:
        value = max(value, dual_clip * advantage)
    return value


def completion_objectives(completion, logprobs, config, use_old, tis_cap):
    """Per-token loss of one completion, as a list; `logprobs` are those of the trained policy."""
    old = completion.old if use_old else completion.behaviour
    length = len(logprobs)
    losses = []
    for t in range(length):
        if config.ratio_level == "token":
            ratio = math.exp(logprobs[t] - old[t])
            frozen_ratio = math.exp(completion.logprobs[t] - old[t])
        else:
            divisor = length if config.ratio_level == "sequence" else 1
            ratio = math.exp(sum(logprobs[s] - old[s] for s in range(length)) / divisor)
            frozen_ratio = math.exp(
                sum(completion.logprobs[s] - old[s] for s in range(length)) / divisor
            )
        value = surrogate(
            config.objective, ratio, frozen_ratio, logprobs[t], completion.advantage,
            config.clip_low, config.clip_high, config.dual_clip,
        )  # fmt: skip
        gaps = [completion.old[s] - completion.behaviour[s] for s in range(length)]
        trust = {
            "token": math.exp(gaps[t]),
            "sequence": math.exp(sum(gaps) / length),
            "sequence_product": math.exp(sum(gaps)),
        }[config.correction_level]
        if tis_cap is not None:
            value *= min(trust, tis_cap)
        if config.mask_low is not None and trust < config.mask_low:
            value = 0.0
        if config.mask_high is not None and trust > config.mask_high:
            value = 0.0
        loss = -value
        if config.kl_in == "loss":
            loss += config.beta * kl_token(
                config.kl_estimator, logprobs[t], completion.reference[t]
            )
        losses.append(loss)
    return losses


def loss(completions, all_logprobs, config, aggregation, max_tokens=None, use_old=True):
    """The scalar loss at `all_logprobs`, a list of `[length]` arrays."""
    per_completion = [
        completion_objectives(completion, logprobs, config, use_old, config.tis_cap)
        for completion, logprobs in zip(completions, all_logprobs, strict=True)
    ]
    number = len(completions)
    if aggregation == "sequence_mean":
        return sum(sum(losses) / len(losses) for losses in per_completion) / number
    if aggregation == "token_mean":
        return sum(map(sum, per_completion)) / sum(map(len, per_completion))
    return sum(map(sum, per_completion)) / (number * max_tokens)


def loss_gradient(completions, config, aggregation, max_tokens=None, use_old=True, step=1e-6):
    """d loss / d logprobs by central differences; a list of `[length]` arrays."""
    point = [completion.logprobs for completion in completions]
    gradient = []
    for i, completion in enumerate(completions):
        gradient.append(np.zeros(len(completion.logprobs)))
        for t in range(len(completion.logprobs)):
            moved = []
            for sign in (1, -1):
                shifted = [array.copy() for array in point]
                shifted[i][t] += sign * step
                moved.append(loss(completions, shifted, config, aggregation, max_tokens, use_old))
            gradient[i][t] = (moved[0] - moved[1]) / (2 * step)
    return gradient
