"""Logit distillation: a student learns a teacher's distribution over the next token.

With teacher distribution p and student distribution q over the vocabulary, both softmaxes of
logits / temperature, the token loss is

    D_beta(p, q) = KL(p | m) / (1 - beta) + KL(q | m) / beta,    m = beta p + (1 - beta) q

This is the generalised Jensen-Shannon divergence of GKD (arXiv:2306.13649, eq. 1) divided by
beta (1 - beta). With that scale it approaches the two KL divergences at its ends, and is defined as
them there: beta = 0 is forward KL(p | q), which covers all modes of the teacher; beta = 1 is
reverse KL(q | p), which seeks single modes. The paper's divergence goes to 0 at both ends, where
implementations such as TRL switch to the KLs; their loss at beta = 0.5 is a quarter of this one.
Losses are not multiplied by temperature^2, unlike in Hinton et al. (arXiv:1503.02531), who thereby
keep the gradient's size.

Either the teacher runs along with the student (`make_loss`), or its k most likely tokens are stored
with the data (`top_logprobs`, `make_top_loss`).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from models.logprobs import align, map_columns
from train.step import Batch, LossFn

# Least probability of all tokens outside the teacher's k together; rounding hides smaller ones.
LEAST_TAIL = 1e-6


def make_loss(
    student: Any,
    teacher: Any,
    *,
    beta: float = 0.0,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> LossFn:
    """Returns `loss_fn(params, batch, teacher_params)`: the sum of loss_weights * D_beta.

    It is made for `make_train_step(..., constants=teacher_params)`. Batches are those of
    `train.objectives.sft`. The models must share their tokens. If one pads its vocabulary further
    (as some sizes of Qwen2.5 do), the entries that only one has are left out of both softmaxes.
    Metrics: `tokens`, the number of trained tokens.

    Args:
      student, teacher: each a `LanguageModel`.
      beta: from 0, forward KL, to 1, reverse KL; see the module's docstring.
      temperature: divides both models' logits.
      chunk: columns whose logits, of both models, exist at a time; see `map_columns`.

    Raises:
      ValueError: beta or temperature is out of range.
    """
    _check(beta, temperature)

    def loss_fn(params, batch, teacher_params):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        vocab = shared_vocab(student, teacher)

        def of_columns(hidden, teacher_hidden):
            logits = student.logits(params, hidden)[..., :vocab]
            teacher_logits = teacher.logits(teacher_params, teacher_hidden)[..., :vocab]
            return _divergence(
                jax.nn.log_softmax(teacher_logits / temperature),
                jax.nn.log_softmax(logits / temperature),
                beta,
            )

        hidden = student.hidden(params, *inputs), teacher.hidden(teacher_params, *inputs)
        return _weighted(map_columns(of_columns, hidden, 2 * vocab, chunk), batch)

    return loss_fn


def make_top_loss(
    student: Any, *, beta: float = 0.0, temperature: float = 1.0, chunk: int | None = None
) -> LossFn:
    """Returns `loss_fn(params, batch)` like `make_loss`, from the teacher's k likeliest tokens.

    Batches have two more arrays, which `top_logprobs` makes at the same temperature. Entry [b, t]
    belongs to the distribution that predicts `tokens[b, t]`.

      teacher_ids: int32 `[rows, length, k]`, distinct token ids.
      teacher_logprobs: float32 `[rows, length, k]`.

    All other tokens count as one outcome, in the teacher and in the student. So the student learns
    their total probability, and nothing about single ones. This is a lower bound of the whole
    divergence (merging outcomes never raises a divergence) and equals it at k = V.

    Raises:
      ValueError: beta or temperature out of range.
    """
    _check(beta, temperature)

    def loss_fn(params, batch):
        hidden = student.hidden(params, batch["tokens"], batch["positions"], batch["segment_ids"])
        # Shifts the entries to the columns that predict.
        ids, logprobs = (
            jnp.roll(batch[name], -1, axis=1) for name in ("teacher_ids", "teacher_logprobs")
        )
        vocab = student.config.vocab_size

        def of_columns(hidden, ids, teacher):
            log_softmax = jax.nn.log_softmax(student.logits(params, hidden) / temperature)
            top = jnp.take_along_axis(log_softmax, ids, -1)
            if ids.shape[-1] < vocab:
                hit = jnp.put_along_axis(
                    jnp.zeros(log_softmax.shape, bool), ids, True, -1, inplace=False
                )
                tail = jax.nn.logsumexp(jnp.where(hit, -jnp.inf, log_softmax), -1, keepdims=True)
                top = jnp.concatenate([top, tail], -1)
                left = 1 - jnp.sum(jnp.exp(teacher), -1, keepdims=True)
                teacher = jnp.concatenate([teacher, jnp.log(jnp.maximum(left, LEAST_TAIL))], -1)
            return _divergence(teacher, top, beta)

        columns = map_columns(of_columns, (hidden, ids, logprobs), 2 * vocab, chunk)
        return _weighted(columns, batch)

    return loss_fn


def top_logprobs(
    teacher: Any,
    params: Any,
    batch: Batch,
    k: int,
    *,
    temperature: float = 1.0,
    vocab: int | None = None,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the teacher's k most likely tokens at every place, for `make_top_loss`; traceable.

    Args:
      batch: tokens, positions and segment_ids, `[rows, length]`.
      vocab: size of the student's vocabulary, if that is smaller.

    Returns:
      Ids (int32) and log-probs (float32), each `[rows, length, k]`, of the distribution that
      predicts the token at that place. The entries of a sequence's first token mean nothing.

    Raises:
      ValueError: k is not within 1..V.
    """
    size: int = vocab or teacher.config.vocab_size
    if not 1 <= k <= size:
        raise ValueError(
            f"k={k}: it must be from 1 to {size}, the number of tokens in the vocabulary"
        )

    def of_columns(hidden):
        logits = teacher.logits(params, hidden)[..., :size]
        values, ids = jax.lax.top_k(jax.nn.log_softmax(logits / temperature), k)
        return ids, values

    hidden = teacher.hidden(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    return jax.tree.map(align, map_columns(of_columns, (hidden,), size, chunk))


def shared_vocab(student: Any, teacher: Any) -> int:
    """Returns the number of vocabulary entries that both models have."""
    return min(student.config.vocab_size, teacher.config.vocab_size)


def _divergence(teacher: jax.Array, student: jax.Array, beta: float) -> jax.Array:
    """Returns D_beta over the last axis of log-probabilities; see the module's docstring."""

    def kl(log_p, log_q):
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)

    teacher = jax.lax.stop_gradient(teacher)
    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixture = jnp.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return kl(teacher, mixture) / (1 - beta) + kl(student, mixture) / beta


def _weighted(columns_BT, batch):
    weights = batch["loss_weights"]
    trained = weights > 0
    loss = jnp.sum(weights * jnp.where(trained, align(columns_BT), 0.0))
    return loss, {"tokens": jnp.sum(trained.astype(jnp.float32))}


def _check(beta, temperature):
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta}: it must be from 0 (forward KL) to 1 (reverse KL)")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: it must be positive")
