"""Computes log-probabilities of given tokens without the logits of a whole batch in memory."""

from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from models.cpu.reductions import row_max, row_sum
from models.sharding import mesh_platform, shards_of

# Most float32 logits that one device holds at a time; 2**26 are 256 MiB. On a CPU, where memory is
# large and products are slow, twice as many: computing them again in the backward pass takes a
# quarter of the head's time at a vocabulary of 49,152 (two cores of an AMD EPYC, 2,048 tokens).
MAX_LOGITS = 2**26
MAX_LOGITS_CPU = 2**27


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
    """Returns the log-probability of each token, given the tokens before it in its row.

    The distribution is softmax(logits / temperature). Entries are aligned to the predicted token:
    entry [b, t] belongs to `tokens[b, t]`, predicted from `hidden[b, t - 1]`; entry [b, 0] is 0. In
    packed rows the first token of a segment is predicted from another segment, so its entry has no
    meaning: give it no loss weight.

    The function computes logits for `chunk` columns of T at a time. If `chunk` is less than T, the
    backward pass computes them again instead of storing them.

    Args:
      model: has a method `logits(params, hidden)`, such as `LanguageModel`.
      params: parameters of the model.
      hidden_BTD: hidden states after the final norm.
      tokens_BT: int32 token ids.
      temperature: positive; may be traced.
      chunk: columns of T at a time; with None, as many as keep each device within `MAX_LOGITS`
        (on a CPU `MAX_LOGITS_CPU`).
      with_entropy: whether to return entropies too.

    Returns:
      Log-probs, float32 `[B, T]`. With entropy, a pair: log-probs, and the entropy in nats of the
      distribution that each token was drawn from. Both are aligned to the predicted token and
      differentiable.

    Raises:
      ValueError: the temperature or the chunk is not positive.
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
        # Instead of a gather, this compares with every vocabulary entry. The comparison fuses into
        # a reduction, works with a sharded vocabulary, and its gradient needs no scatter.
        entries = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        hit = entries == targets[..., None]
        logprobs = row_sum(jnp.where(hit, logits, 0.0)) - log_total
        if not with_entropy:
            return (logprobs,)
        log_softmax = logits - log_total[..., None]
        return logprobs, -jnp.sum(jnp.exp(log_softmax) * log_softmax, -1)

    # The last column predicts nothing. It is computed nevertheless, because T divides more evenly
    # than T - 1, and `align` drops it.
    targets_BT = jnp.roll(tokens_BT, -1, axis=1)
    columns = map_columns(of_columns, (hidden_BTD, targets_BT), vocab, chunk)
    aligned = tuple(align(x) for x in columns)
    return (aligned[0], aligned[1]) if with_entropy else aligned[0]


def map_columns(
    fn: Callable[..., Any], inputs: tuple[jax.Array, ...], logits: int, chunk: int | None = None
) -> Any:
    """Returns `fn(*inputs)`, computed for `chunk` columns of T at a time to save memory.

    If `chunk` is less than T, the backward pass computes `fn` again instead of storing its
    intermediate results.

    Args:
      fn: maps arrays `[B, T, ...]` to a pytree of arrays `[B, T, ...]`, each column independently.
      inputs: arrays `[B, T, ...]`.
      logits: how many float32 numbers `fn` holds for each entry of `[B, T]`, such as V.
      chunk: columns at a time; with None, as many as keep each device within `MAX_LOGITS` (on a
        CPU `MAX_LOGITS_CPU`).

    Raises:
      ValueError: the chunk is not positive.
    """
    batch, length = inputs[0].shape[:2]
    if chunk is None:
        devices = max(jax.sharding.get_abstract_mesh().size, 1)
        most = MAX_LOGITS_CPU if mesh_platform() == "cpu" else MAX_LOGITS
        chunk = max(1, min(length, most * devices // (batch * logits)))
    if chunk < 1:
        raise ValueError(f"chunk={chunk} is not a number of columns; it must be at least 1")
    if chunk >= length:
        return fn(*inputs)
    # Each chunk has columns from all devices that share a row, so that none of them waits.
    shards = shards_of("length", length)
    own, chunk = length // shards, max(1, chunk // shards)
    num_chunks = -(-own // chunk)

    def split(x):
        x, rest = x.reshape(batch, shards, own, *x.shape[2:]), x.shape[2:]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, num_chunks * chunk - own), *[(0, 0)] * len(rest)))
        x = jnp.moveaxis(x.reshape(batch, shards, num_chunks, chunk, *rest), 2, 0)
        return x.reshape(num_chunks, batch, shards * chunk, *rest)

    def join(x):
        x = x.reshape(num_chunks, batch, shards, chunk, *x.shape[3:])
        x = jnp.moveaxis(x, 0, 2).reshape(batch, shards, num_chunks * chunk, *x.shape[4:])
        return x[:, :, :own].reshape(batch, length, *x.shape[3:])

    columns = jax.lax.map(jax.checkpoint(lambda parts: fn(*parts)), tuple(map(split, inputs)))
    return jax.tree.map(join, columns)


def align(x_BT: jax.Array) -> jax.Array:
    """Moves each entry from the column that predicts to the predicted one; column 0 gets 0."""
    return jnp.pad(x_BT[:, :-1], ((0, 0), (1, 0), *[(0, 0)] * (x_BT.ndim - 2)))
