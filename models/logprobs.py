"""Log-probabilities of given tokens, without holding the logits of a whole batch."""

from typing import Any

import jax
import jax.numpy as jnp

# Float32 logits that one device holds at a time: 2**26 are 256 MiB.
MAX_LOGITS = 2**26


def token_logprobs(
    model: Any,
    params: Any,
    hidden_BTD: jax.Array,
    tokens_BT: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    chunk: int | None = None,
    with_entropy: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Log-probability of each token given what precedes it, under softmax(logits / temperature).

    Aligned to the predicted token: entry [b, t] is that of `tokens[b, t]`, predicted from
    `hidden[b, t - 1]`; entry [b, 0] is 0. In packed rows the first token of a segment is
    predicted from another segment, so its entry means nothing: give it no loss weight.

    Logits are made for `chunk` columns at a time and, where that is less than T, made again in
    the backward pass instead of being kept.

    Args:
      model: has `logits(params, hidden)`, such as `LanguageModel`.
      hidden_BTD: final hidden states.
      tokens_BT: int32.
      temperature: positive; may be traced.
      chunk: columns of T at a time; None for as many as keep a device within `MAX_LOGITS`.
      with_entropy: return the entropy of the distributions too.

    Returns:
      float32 `[B, T]`; or two, the second the entropy in nats of the distribution that the token
      was drawn from, aligned and differentiable alike.

    Raises:
      ValueError: a temperature or a chunk that is not positive.
    """
    if isinstance(temperature, (int, float)) and temperature <= 0:
        raise ValueError(f"temperature={temperature} has no log-probs; it must be positive")
    batch, length, dim = hidden_BTD.shape
    if chunk is None:
        vocab = jax.eval_shape(model.logits, params, hidden_BTD[:1, :1]).shape[-1]
        devices = max(jax.sharding.get_abstract_mesh().size, 1)
        chunk = max(1, min(length, MAX_LOGITS * devices // (batch * vocab)))
    if chunk < 1:
        raise ValueError(f"chunk={chunk} is no number of columns; it must be at least 1")

    def of_columns(hidden, targets):
        logits = model.logits(params, hidden)
        if not (isinstance(temperature, (int, float)) and temperature == 1):
            logits = logits / temperature
        log_total = jax.nn.logsumexp(logits, -1)
        # A comparison with every vocabulary entry fuses into a reduction, also where the
        # vocabulary is sharded; its gradient needs no scatter.
        entries = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        hit = entries == targets[..., None]
        logprobs = jnp.sum(jnp.where(hit, logits, 0.0), -1) - log_total
        if not with_entropy:
            return (logprobs,)
        log_softmax = logits - log_total[..., None]
        return logprobs, -jnp.sum(jnp.exp(log_softmax) * log_softmax, -1)

    # The last column predicts nothing; it is computed all the same, since T is a rounder number
    # than T - 1, and dropped by `align`.
    targets_BT = jnp.roll(tokens_BT, -1, axis=1)
    if chunk >= length:
        columns = of_columns(hidden_BTD, targets_BT)
    else:
        num_chunks = -(-length // chunk)
        padding = ((0, 0), (0, num_chunks * chunk - length))
        hidden = jnp.pad(hidden_BTD, (*padding, (0, 0)))
        hidden = hidden.reshape(batch, num_chunks, chunk, dim).swapaxes(0, 1)
        targets = jnp.pad(targets_BT, padding).reshape(batch, num_chunks, chunk).swapaxes(0, 1)
        columns = jax.lax.map(jax.checkpoint(lambda inputs: of_columns(*inputs)), (hidden, targets))
        columns = tuple(x.swapaxes(0, 1).reshape(batch, -1)[:, :length] for x in columns)

    def align(x_BT):
        return jnp.pad(x_BT[:, :-1], ((0, 0), (1, 0)))

    aligned = tuple(align(x) for x in columns)
    return aligned if with_entropy else aligned[0]
