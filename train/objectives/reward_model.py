"""Trains a reward model on preferences: it learns to score the chosen response higher.

The model is Bradley-Terry: P(chosen preferred) = sigmoid(r(chosen) - r(rejected)). A reward is the
value at the last token (arXiv:2203.02155, eq. 1). Optionally the difference must exceed a margin,
which is larger for clear preferences (arXiv:2307.09288, eq. 2).

The packer sees a pair as one sequence, the model as two: the chosen sequence, then the rejected
one. So both are in one row, and packing, microbatches and sharding never separate them.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.tokens.tokenizer import Tokenizer
from train.chat_records import VARIABLES
from train.data import Example, encode_records, read_records
from train.step import LossFn, Metrics


def make_loss(model: Any) -> LossFn:
    """Returns `loss_fn(params, batch)`, with sigmoids of differences between rewards.

    The loss is sum(loss_weights * -log sigmoid(r_chosen - r_rejected - margin)). Batches hold
    tokens, positions, segment_ids, loss_weights, member_starts and margins, each `[rows, length]`,
    packed from `encode_pairs`. The loss weight of a pair is at its last token, where the rejected
    response ends. Metrics, which `mean_metrics` finishes: `pairs`, their number; `accuracy`, the
    share of pairs in which the chosen response scores higher; `reward_gap`, the mean of
    r_chosen - r_rejected; `tokens`, the number of tokens read.

    Args:
      model: a `ScalarModel` without bias, since a bias would cancel.
    """

    def loss_fn(params, batch):
        starts, segment_ids = batch["member_starts"], batch["segment_ids"]
        positions = batch["positions"] - starts
        # Segments 2s and 2s + 1 for pair s; padding stays 0.
        members = 2 * segment_ids + (starts > 0)
        values = model.values(params, model.hidden(params, batch["tokens"], positions, members))
        # The token before the rejected sequence's first one is the chosen sequence's last.
        columns = jnp.arange(values.shape[1]) - positions - 1
        chosen = jnp.take_along_axis(values, jnp.maximum(columns, 0), axis=1)
        gaps = chosen - values
        weights = batch["loss_weights"]
        trained = weights > 0
        losses = jax.nn.softplus(batch["margins"] - gaps)

        def total(x):
            return jnp.sum(jnp.where(trained, x, 0).astype(jnp.float32))

        return total(weights * jnp.where(trained, losses, 0.0)), {
            "pairs": total(1.0),
            "accuracy": total(gaps > 0),
            "reward_gap": total(gaps),
            "tokens": jnp.sum((segment_ids > 0).astype(jnp.float32)),
        }

    return loss_fn


def mean_metrics(metrics: Metrics) -> Metrics:
    """Turns sums over pairs into means; for `make_train_step(finalize=...)`."""
    pairs = jnp.maximum(metrics["pairs"], 1.0)
    return metrics | {name: metrics[name] / pairs for name in ("accuracy", "reward_gap")}


def load_pairs(path: str | os.PathLike, tokenizer: Tokenizer) -> list[Example]:
    """Reads all records of a JSONL file as examples; see `encode_pairs`."""
    wheres, records = zip(*read_records(path), strict=True)
    return encode_pairs(records, tokenizer, wheres=wheres)


def encode_pairs(
    records: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    wheres: Sequence[str] | None = None,
) -> list[Example]:
    """Tokenizes preference pairs, for a `PackedSource` whose rows hold both members of a pair.

    A record has "prompt", "chosen" and "rejected". All three may be text; or the prompt is a list
    of messages, and the responses are text or lists of messages. Without a prompt, "chosen" and
    "rejected" are two whole conversations. An optional "margin" is the number by which the rewards
    should differ.

    Args:
      records: the pairs.
      tokenizer: the model's tokenizer.
      wheres: names of the records for error messages.

    Returns:
      Dicts of `tokens`, `loss_weights`, `member_starts` and `margins`, of one length.
      `member_starts` is 0 in the chosen sequence, and in the rejected one the index of its start.

    Raises:
      ValueError: a record has none of these forms, its responses are equal, or its margin is no
        number.
    """
    wheres = wheres or [f"record {i}" for i in range(len(records))]
    members: dict[str, list] = {"chosen": [], "rejected": []}
    margins = []
    for where, record in zip(wheres, records, strict=True):
        try:
            for name, rendered in members.items():
                rendered.append(_member(record, name))
            if members["chosen"][-1] == members["rejected"][-1]:
                raise ValueError("'chosen' and 'rejected' are equal, so neither is preferred")
            margin = record.get("margin", 0.0)
            if isinstance(margin, bool) or not isinstance(margin, (int, float)):
                raise ValueError(f"'margin' is {margin!r}; it must be a number")
            margins.append(float(margin))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    encoded = {
        name: [
            _until_last_trained(example)
            for example in encode_records(rendered, tokenizer, wheres=wheres, allow_empty=True)
        ]
        for name, rendered in members.items()
    }
    return [
        _pair(chosen, rejected, margin)
        for chosen, rejected, margin in zip(encoded["chosen"], encoded["rejected"], margins)
    ]


def _member(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns one of the two sequences as a record for `encode_records`."""
    if name not in record:
        raise ValueError(
            f"has the fields {', '.join(sorted(record)) or 'none'}; a preference needs 'prompt', "
            "'chosen' and 'rejected'"
        )
    prompt, response = record.get("prompt"), record[name]
    for field, value in (("prompt", prompt), (name, response)):
        if not isinstance(value, (str, list)) and not (field == "prompt" and value is None):
            kind = type(value).__name__
            raise ValueError(f"{field!r} is a {kind}; it must be text or a list of messages")
    if isinstance(response, str):
        if prompt is None:
            raise ValueError(f"{name!r} is text, but there is no 'prompt' that it answers")
        if isinstance(prompt, str):
            return {"prompt": prompt, "response": response}
        response = [{"role": "assistant", "content": response}]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    variables = {name: record[name] for name in VARIABLES if name in record}
    return {"messages": [*(prompt or []), *response], **variables}


def _until_last_trained(example: Example) -> np.ndarray:
    """Returns the tokens up to the one that ends the response, without a newline behind it."""
    last = int(np.flatnonzero(example["loss_weights"])[-1])
    return example["tokens"][: last + 1]


def _pair(chosen: np.ndarray, rejected: np.ndarray, margin: float) -> Example:
    tokens = np.concatenate([chosen, rejected])
    weights = np.zeros(len(tokens), np.float32)
    weights[-1] = 1.0
    starts = np.repeat([0, len(chosen)], [len(chosen), len(rejected)])
    return {
        "tokens": tokens,
        "loss_weights": weights,
        "member_starts": starts.astype(np.int32),
        "margins": np.full(len(tokens), margin, np.float32),
    }
