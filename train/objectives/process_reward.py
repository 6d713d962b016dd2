"""Verifiers of reasoning: the probability that a solution so far is right, step by step.

A process reward model (PRM) is labelled at the token that ends each step (arXiv:2305.20050,
arXiv:2312.08935); an outcome reward model (ORM) by whether the whole solution is right
(arXiv:2110.14168). Both are logistic regressions on the values of a scalar head: one loss, other
labels.

To tell right from wrong a verifier has to know what is right. So it may also go on learning to
write right solutions (arXiv:2110.14168, section 4.2, the joint objective): see `with_language`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.logprobs import token_logprobs
from train.data import Example
from train.step import LossFn, Metrics

# Where an outcome is labelled.
PLACES = ("last", "all")


def make_loss(model: Any) -> LossFn:
    """`loss_fn(params, batch)`: sum(loss_weights * cross-entropy of label and sigmoid(value)).

    Batches hold tokens, positions, segment_ids, loss_weights and labels, each `[rows, length]`;
    labels lie in [0, 1], hard or soft, and count where there is a loss weight. With normalized
    weights the loss is a mean, in nats. Where a batch has language_weights, it gains
    sum(language_weights * -log p(token)). Metrics, to be finished by `mean_metrics`: `labels`, how
    many there are; `agreement`, of how many the value is on the label's side of one half;
    `tokens`, how many were read; `nll`, where language is learned, the mean of -log p(token).

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
    """For `make_train_step(finalize=...)`: turns `agreement` into a share, `nll` into a mean."""
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
    """A solution whose steps are labelled, as a training example.

    Args:
      token_ids: of the response.
      step_ends: ascending indices into `token_ids` of the tokens that end a step.
      labels: one in [0, 1] for each step.

    Raises:
      ValueError: ends that are out of range or order, or labels that are not one in [0, 1] for
        each.
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
    """A solution with one label, as a training example.

    Args:
      at: `all` asks for the outcome at every token of the response: a value function, which
        arXiv:2110.14168 (section 4.3) finds to generalise better than the verdict alone, and
        which can score unfinished solutions too. `last` asks at the last token only. Either way a
        solution has a loss weight of 1 in all, so that long ones count no more than short ones.

    Raises:
      ValueError: an unknown place, an empty response or a label outside [0, 1].
    """
    if at not in PLACES:
        raise ValueError(f"at={at!r} is unknown; choose {' or '.join(PLACES)}")
    count = len(token_ids)
    ends = [count - 1] if at == "last" else range(count)
    example = process_example(prompt_ids, token_ids, ends, [label] * len(ends))
    return example | {"loss_weights": example["loss_weights"] / len(ends)}


def with_language(example: Example, response: int, share: float, right: bool) -> Example:
    """An example of which the response, where it is right, is also learned to be written.

    The weights of its tokens are equal, and `share` times those of its labels in all.

    Args:
      response: index of the response's first token.

    Raises:
      ValueError: a negative share, or no prompt, whose last token predicts the response's first.
    """
    if share < 0:
        raise ValueError(f"share={share}: it must be at least 0")
    if not 0 < response < len(example["tokens"]):
        raise ValueError(f"response={response} leaves no prompt, or no response, to learn from")
    weights = np.zeros(len(example["tokens"]), np.float32)
    if right:
        weights[response:] = share * example["loss_weights"].sum() / (len(weights) - response)
    return example | {"language_weights": weights}
