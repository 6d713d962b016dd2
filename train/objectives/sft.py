"""Next-token cross-entropy: the objective of pretraining and supervised fine-tuning."""

from typing import Any

import jax.numpy as jnp

from models.logprobs import token_logprobs
from train.step import LossFn


def make_loss(model: Any, *, chunk: int | None = None) -> LossFn:
    """Returns `loss_fn(params, batch)`: the sum of loss_weights * -log p(token).

    It is made for `make_train_step`. Batches hold tokens, positions, segment_ids and loss_weights,
    each `[rows, length]`. With normalized weights the loss is the mean over trained tokens in nats,
    and its exponential is the perplexity. Metrics: `tokens`, the number of trained tokens.

    Args:
      model: a `LanguageModel`.
      chunk: see `token_logprobs`.
    """

    def loss_fn(params, batch):
        tokens, weights = batch["tokens"], batch["loss_weights"]
        hidden = model.hidden(params, tokens, batch["positions"], batch["segment_ids"])
        logprobs = token_logprobs(model, params, hidden, tokens, chunk=chunk)
        trained = weights > 0
        loss = -jnp.sum(weights * jnp.where(trained, logprobs, 0.0))
        return loss, {"tokens": jnp.sum(trained.astype(jnp.float32))}

    return loss_fn
