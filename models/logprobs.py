"""Log-probabilities of given tokens, without holding the logits of a whole batch."""

from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from models.cpu.reductions import row_max, row_sum

# Float32 logits that one device holds at a time: 2**26 are 256 MiB.
MAX_LOGITS = 2**26


@overload
def token_logprobs(
    model: Any,
    params: Any,
    hidden_BTD: jax.Array,
    tokens_BT: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    chunk: int | None = None,
    with_entropy: Literal[False] = False,
) -> jax.Array: ...
@overload
def token_logprobs(
    model: Any,
    params: Any,
    hidden_BTD: jax.Array,
    tokens_BT: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    chunk: int | None = None,
    with_entropy: Literal[True],
) -> tuple[jax.Array, jax.Array]: ...
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
    vocab = jax.eval_shape(model.logits, params, hidden_BTD[:1, :1]).shape[-1]

    def of_columns(hidden, targets):
        logits = model.logits(params, hidden)
        if not (isinstance(temperature, (int, float)) and temperature == 1):
            logits = logits / temperature
        peak = jax.lax.stop_gradient(row_max(logits))
        log_total = peak + jnp.log(row_sum(jnp.exp(logits - peak[..., None])))
        # A comparison with every vocabulary entry fuses into a reduction, also where the
        # vocabulary is sharded; its gradient needs no scatter.
        entries = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        hit = entries == targets[..., None]
        logprobs = row_sum(jnp.where(hit, logits, 0.0)) - log_total
        if not with_entropy:
            return (logprobs,)
        log_softmax = logits - log_total[..., None]
        return logprobs, -jnp.sum(jnp.exp(log_softmax) * log_softmax, -1)

    # The last column predicts nothing; it is computed all the same, since T is a rounder number
    # than T - 1, and dropped by `align`.
    targets_BT = jnp.roll(tokens_BT, -1, axis=1)
    columns = map_columns(of_columns, (hidden_BTD, targets_BT), vocab, chunk)
    aligned = tuple(align(x) for x in columns)
    return aligned if with_entropy else aligned[0]


def map_columns(
    fn: Callable[..., Any], inputs: tuple[jax.Array, ...], logits: int, chunk: int | None = None
) -> Any:
    """`fn(*inputs)`, computed for `chunk` columns of T at a time.

    Where that is less than T, `fn` is computed again in the backward pass; nothing is kept.

    Args:
      fn: acts on each column by itself; from arrays to a pytree of arrays, all `[B, T, ...]`.
      inputs: arrays `[B, T, ...]`.
      logits: float32 numbers that `fn` holds for an entry of `[B, T]`, such as the vocabulary size.
      chunk: None for as many columns as keep a device within `MAX_LOGITS`.

    Raises:
      ValueError: a chunk that is not positive.
    """
    batch, length = inputs[0].shape[:2]
    if chunk is None:
        devices = max(jax.sharding.get_abstract_mesh().size, 1)
        chunk = max(1, min(length, MAX_LOGITS * devices // (batch * logits)))
    if chunk < 1:
        raise ValueError(f"chunk={chunk} is no number of columns; it must be at least 1")
    if chunk >= length:
        return fn(*inputs)
    num_chunks = -(-length // chunk)

    def split(x):
        x = jnp.pad(x, ((0, 0), (0, num_chunks * chunk - length), *[(0, 0)] * (x.ndim - 2)))
        return x.reshape(batch, num_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    def join(x):
        return x.swapaxes(0, 1).reshape(batch, -1, *x.shape[3:])[:, :length]

    columns = jax.lax.map(jax.checkpoint(lambda parts: fn(*parts)), tuple(map(split, inputs)))
    return jax.tree.map(join, columns)


def align(x_BT: jax.Array) -> jax.Array:
    """From the column that predicts to the column that is predicted; the first one gets 0."""
    return jnp.pad(x_BT[:, :-1], ((0, 0), (1, 0), *[(0, 0)] * (x_BT.ndim - 2)))
