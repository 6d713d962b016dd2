"""Packs sampled completions, each after its prompt, into batches of fixed shape for the trainer.

Completions of one prompt can share one copy of it. Then a row holds blocks:

    prompt without its last token | last token, completion | last token, completion | ...

Each part is a segment, and the prompt is the prefix of every completion behind it
(`models.layers.attention`). The prompt's last token stands before each completion because it
predicts the first token there.
"""

import collections

import numpy as np

from models.tokens.packing import pack, place
from rl.rollouts import Rollouts

INTEGERS = ("tokens", "positions", "segment_ids")
FLOATS = ("loss_weights", "advantages", "behaviour_logprobs")


def full_rows_first(batch: dict[str, np.ndarray], microbatches: int) -> dict[str, np.ndarray]:
    """Reorders rows so that the empty ones form whole microbatches, which the train step skips.

    Microbatch i of the train step takes rows i, i + microbatches, ...; packing leaves the last rows
    empty.
    """
    rows = len(batch["tokens"])
    order = np.arange(rows).reshape(microbatches, -1).T.ravel()
    return {name: x[order] for name, x in batch.items()}


def rows_needed(prompt: int, response: int, completions: int, row_length: int) -> int:
    """Returns the rows that the completions of one prompt need at most if they share it.

    Args:
      prompt, response: tokens of the longest prompt and of the longest response.
      completions: completions of a prompt.
      row_length: tokens of a row, at least a prompt and a response.
    """
    in_a_row = (row_length - (prompt - 1)) // (1 + response)
    return -(-completions // in_a_row)


def pack_rollouts(
    rollouts: Rollouts,
    advantages: np.ndarray,
    weights: np.ndarray,
    rows: int,
    row_length: int,
    share_prompts: bool = False,
) -> tuple[dict[str, np.ndarray], list[tuple[int, slice]]]:
    """Packs prompts with their completions into a batch of fixed shape.

    Args:
      rollouts: the rollouts to pack.
      advantages: `[P, G]`.
      weights: `[P, G]`, loss weight of each token of a completion. Completions of weight 0 are left
        out.
      rows, row_length: shape of the batch; unused rows at the end stay empty.
      share_prompts: whether completions in one row share a copy of their prompt.

    Returns:
      The batch: `tokens, positions, segment_ids, loss_weights, advantages, behaviour_logprobs`,
      each `[rows, row_length]`, and with `share_prompts` also `prefix_ids`; and the place (row,
      columns) of each packed completion, in the order of the rollouts.

    Raises:
      ValueError: if a sequence is longer than a row or the rows cannot hold all sequences.
    """
    integers = (*INTEGERS, "prefix_ids") if share_prompts else INTEGERS
    kept = [(int(i), int(g)) for i, g in zip(*np.nonzero(weights > 0))]
    if not kept:
        empty = {name: np.zeros((rows, row_length), np.int32) for name in integers}
        return empty | {name: np.zeros((rows, row_length), np.float32) for name in FLOATS}, []
    blocks = _shared(rollouts, kept, row_length) if share_prompts else [[pair] for pair in kept]
    sequences = [_sequence(rollouts, block, advantages, weights) for block in blocks]
    if share_prompts:
        for sequence, block in zip(sequences, blocks):
            sequence |= _parts(rollouts, block)
    placement = place([len(each["tokens"]) for each in sequences], row_length)
    batch = pack(sequences, placement, row_length, rows)
    if share_prompts:
        _number_parts(batch)
    spans = {}
    for block, row, start in zip(blocks, placement.row, placement.offset):
        end = int(start) + len(rollouts.prompt_ids[block[0][0]]) - 1
        for i, g in block:
            start, end = end + 1, end + 1 + len(rollouts.completions[i][g].token_ids)
            spans[i, g] = int(row), slice(start, end)
    return batch, [spans[pair] for pair in kept]


def _shared(rollouts, kept, row_length):
    """Returns blocks of completions that share a prompt, each of them short enough for a row."""
    by_prompt = collections.defaultdict(list)
    for i, g in kept:
        by_prompt[i].append((i, g))
    blocks = collections.defaultdict(list)
    for i, pairs in by_prompt.items():
        own = [1 + len(rollouts.completions[i][g].token_ids) for _, g in pairs]
        before = len(rollouts.prompt_ids[i]) - 1
        if before + max(own) > row_length:
            raise ValueError(
                f"a prompt with its completion has {before + max(own)} tokens, longer than row"
                f" length {row_length}: raise it or truncate"
            )
        for pair, block in zip(pairs, place(own, row_length - before).row):
            blocks[i, int(block)].append(pair)
    return list(blocks.values())


def _sequence(rollouts, block, advantages, weights):
    """Returns the arrays of a prompt and some completions of it, one behind the other."""
    prompt = rollouts.prompt_ids[block[0][0]]
    ids = [np.array(prompt[:-1], np.int64)]
    values = {name: [np.zeros(len(prompt) - 1)] for name in FLOATS}
    for i, g in block:
        completion = rollouts.completions[i][g]
        if completion.logprobs is None or min(completion.token_ids, default=0) < 0:
            raise ValueError(
                "a completion has no log-probabilities or token ids, which RL needs: sample it with"
                " a generator that reports them, such as JaxGenerator"
            )
        ids.append(np.array(prompt[-1:] + completion.token_ids))
        own = np.ones(len(completion.token_ids))
        of_completion = {
            "loss_weights": weights[i, g] * own,
            "advantages": advantages[i, g] * own,
            "behaviour_logprobs": completion.logprobs,
        }
        for name, column in of_completion.items():
            values[name] += [np.zeros(1), column]
    floats = {name: np.concatenate(x).astype(np.float32) for name, x in values.items()}
    return {"tokens": np.concatenate(ids), **floats}


def _parts(rollouts, block):
    """Returns positions, and the part of the block that each token is in and sees as its prefix."""
    before = len(rollouts.prompt_ids[block[0][0]]) - 1
    lengths = [1 + len(rollouts.completions[i][g].token_ids) for i, g in block]
    # A prompt of one token has no part of its own.
    first = 2 if before else 1
    numbers = np.repeat(np.arange(first, first + len(lengths)), lengths)
    return {
        "positions": np.concatenate([np.arange(before), *(before + np.arange(n) for n in lengths)]),
        "part": np.concatenate([np.ones(before, np.int64), numbers]),
        "prefix": np.concatenate(
            [np.ones(before, np.int64), np.ones_like(numbers) if before else numbers]
        ),
    }


def _number_parts(batch):
    """Replaces the parts of blocks by segments and prefixes, which are numbered along each row."""
    block, part, prefix = batch["segment_ids"], batch.pop("part"), batch.pop("prefix")
    begins = np.diff(part, axis=1, prepend=0).astype(bool) | (np.diff(block, axis=1, prepend=0) > 0)
    segment = np.cumsum(begins & (block > 0), axis=1)
    batch["segment_ids"] = np.where(block > 0, segment, 0).astype(np.int32)
    batch["prefix_ids"] = np.where(block > 0, segment - part + prefix, 0).astype(np.int32)
