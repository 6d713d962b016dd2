"""Trains verifiers, which predict the probability that a solution so far is right.

A process reward model (PRM) has a label at the token that ends each step (arXiv:2305.20050,
arXiv:2312.08935). An outcome reward model (ORM) has one label: whether the whole solution is right
(arXiv:2110.14168). Both are logistic regressions on the values of a scalar head, with one loss and
different labels.

A verifier has to know right solutions to judge others. So it may also keep learning to write right
solutions (arXiv:2110.14168, section 4.2, the joint objective); see `with_language`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.logprobs import token_logprobs
from train.data import Example
from train.step import LossFn, Metrics

# The tokens that carry the label of an outcome.
PLACES = ("last", "all")


def make_loss(model: Any) -> LossFn:
    """Returns `loss_fn(params, batch)`: sum(loss_weights * cross-entropy(label, sigmoid(value))).

    Batches hold tokens, positions, segment_ids, loss_weights and labels, each `[rows, length]`.
    Labels lie in [0, 1], hard or soft, and count where there is a loss weight. With normalized
    weights the loss is a mean, in nats. If a batch has language_weights, the loss gains
    sum(language_weights * -log p(token)).

    Metrics, which `mean_metrics` finishes: `labels`, their number; `agreement`, the number of
    values on their label's side of one half; `tokens`, the number of tokens read; with
    language_weights also `nll`, the mean of -log p(token).

    Args:
      model: a `ScalarModel`.
    """

    def loss_fn(params, batch):
        segment_ids, weights = batch["segment_ids"], batch["loss_weights"]
        hidden = model.hidden(params, batch["tokens"], batch["positions"], segment_ids)
        values, labels = model.values(params, hidden), batch["labels"].astype(jnp.float32)
        # -y log s(v) - (1 - y) log(1 - s(v)), with no logarithm of a rounded sigmoid.
        losses = jax.nn.softplus(values) - labels * values
        trained = weights > 0
        agrees = trained & ((values > 0) == (labels > 0.5))
        loss = jnp.sum(weights * jnp.where(trained, losses, 0.0))
        metrics = {
            "labels": jnp.sum(trained.astype(jnp.float32)),
            "agreement": jnp.sum(agrees.astype(jnp.float32)),
            "tokens": jnp.sum((segment_ids > 0).astype(jnp.float32)),
        }
        if "language_weights" in batch:
            written = batch["language_weights"] > 0
            nll = -token_logprobs(model, params, hidden, batch["tokens"])
            nll = jnp.where(written, nll, 0.0)
            loss += jnp.sum(batch["language_weights"] * nll)
            metrics["nll"] = jnp.sum(nll)
            metrics["written"] = jnp.sum(written.astype(jnp.float32))
        return loss, metrics

    return loss_fn


def mean_metrics(metrics: Metrics) -> Metrics:
    """Turns `agreement` into a share and `nll` into a mean; for `make_train_step(finalize=...)`."""
    metrics = dict(metrics)
    metrics["agreement"] /= jnp.maximum(metrics["labels"], 1.0)
    if "nll" in metrics:
        metrics["nll"] /= jnp.maximum(metrics.pop("written"), 1.0)
    return metrics


def process_example(
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    step_ends: Sequence[int],
    labels: Sequence[float],
) -> Example:
    """Makes a training example of a solution whose steps are labelled.

    Args:
      prompt_ids: tokens of the prompt.
      token_ids: tokens of the response.
      step_ends: ascending indices into `token_ids` of the tokens that end a step.
      labels: one in [0, 1] for each step.

    Raises:
      ValueError: ends are out of range or order, or there is not one label in [0, 1] for each.
    """
    ends, values = np.asarray(step_ends, np.int64), np.asarray(labels, np.float32)
    if ends.shape != values.shape or not ends.size:
        raise ValueError(f"{ends.size} step ends and {values.size} labels: give one for each step")
    if ends[0] < 0 or ends[-1] >= len(token_ids) or np.any(np.diff(ends) <= 0):
        raise ValueError(
            f"step_ends={list(step_ends)} must ascend within the {len(token_ids)} response tokens"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"labels={list(labels)} must lie in [0, 1]")
    length = len(prompt_ids) + len(token_ids)
    example = {
        "tokens": np.array([*prompt_ids, *token_ids], np.int32),
        "loss_weights": np.zeros(length, np.float32),
        "labels": np.zeros(length, np.float32),
    }
    example["loss_weights"][len(prompt_ids) + ends] = 1.0
    example["labels"][len(prompt_ids) + ends] = values
    return example


def outcome_example(
    prompt_ids: Sequence[int], token_ids: Sequence[int], label: float, at: str = "all"
) -> Example:
    """Makes a training example of a solution with one label.

    Args:
      prompt_ids: tokens of the prompt.
      token_ids: tokens of the response.
      label: 1 if the solution is right, 0 if it is wrong.
      at: `all` puts the label at every token of the response. This trains a value function, which
        generalises better than the verdict alone (arXiv:2110.14168, section 4.3) and can score
        unfinished solutions. `last` puts the label at the last token only. Either way the loss
        weights of a solution add up to 1, so long solutions count no more than short ones.

    Raises:
      ValueError: the place is unknown, the response is empty, or the label lies outside [0, 1].
    """
    if at not in PLACES:
        raise ValueError(f"at={at!r} is unknown; choose {' or '.join(PLACES)}")
    count = len(token_ids)
    ends = [count - 1] if at == "last" else range(count)
    example = process_example(prompt_ids, token_ids, ends, [label] * len(ends))
    return example | {"loss_weights": example["loss_weights"] / len(ends)}


def with_language(example: Example, response: int, share: float, right: bool) -> Example:
    """Adds `language_weights` to an example, so that the model also learns to write it if right.

    The response's tokens have equal weights, which add up to `share` times the loss weights of its
    labels. A wrong response gets weights of 0.

    Args:
      example: from `process_example` or `outcome_example`.
      response: index of the response's first token.
      share: total language weight, relative to the loss weights.
      right: whether the response is right.

    Raises:
      ValueError: the share is negative, or there is no prompt or no response. (The prompt's last
        token predicts the response's first.)
    """
    if share < 0:
        raise ValueError(f"share={share}: it must be at least 0")
    if not 0 < response < len(example["tokens"]):
        raise ValueError(f"response={response} leaves no prompt, or no response, to learn from")
    weights = np.zeros(len(example["tokens"]), np.float32)
    if right:
        weights[response:] = share * example["loss_weights"].sum() / (len(weights) - response)
    return example | {"language_weights": weights}
