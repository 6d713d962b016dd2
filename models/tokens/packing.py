"""Packs sequences into rows of fixed length: chooses their places and builds the arrays."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Placement:
    """Places of sequences: number i fills `[offset[i], offset[i] + length[i])` of `row[i]`.

    Attributes:
      row, offset, length: int64 `[N]`.
      segment: int64 `[N]`, 1 for the first sequence of a row, 2 for the second, ...
      num_rows: total number of rows.
    """

    row: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    segment: np.ndarray
    num_rows: int


def place(lengths: Sequence[int] | np.ndarray, row_length: int) -> Placement:
    """Places sequences by best fit, longest first: each goes to the fullest row that has room.

    Best-fit decreasing needs at most 11/9 of the fewest possible rows, and one more (Johnson et
    al., 1974). Ties are settled by order, so the same lengths always give the same placement.

    Raises:
      ValueError: if a sequence is empty or longer than a row.
    """
    lengths = _checked(lengths, row_length)
    row, offset, segment = (np.zeros(len(lengths), np.int64) for _ in range(3))
    # Bit s of `spaces` is set if some row has exactly s free columns; `rows[s]` lists such rows.
    spaces, rows = 0, [[] for _ in range(row_length + 1)]
    num_rows, used = 0, []
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            chosen = rows[space].pop()
            if not rows[space]:
                spaces ^= 1 << space
        else:
            space, chosen = row_length, num_rows
            num_rows += 1
            used.append(0)
        used[chosen] += 1
        row[i], offset[i], segment[i] = chosen, row_length - space, used[chosen]
        rows[space - length].append(chosen)
        spaces |= 1 << (space - length)
    return Placement(row, offset, lengths, segment, num_rows)


def place_apart(lengths: Sequence[int] | np.ndarray, row_length: int) -> Placement:
    """Places one sequence in each row, in the given order; raises like `place`."""
    lengths = _checked(lengths, row_length)
    count = len(lengths)
    return Placement(
        np.arange(count), np.zeros(count, np.int64), lengths, np.ones(count, np.int64), count
    )


def pack(
    sequences: Sequence[Mapping[str, np.ndarray]],
    placement: Placement,
    row_length: int,
    num_rows: int | None = None,
) -> dict[str, np.ndarray]:
    """Copies sequences into rows.

    Args:
      sequences: dicts with the same keys, each of arrays of one length: `tokens`,
        `loss_weights`, and any other number or array for each token. A sequence may bring
        `positions` of its own.
      placement: places of the sequences, from `place` or `place_apart`.
      row_length: tokens of a row.
      num_rows: rows of the result, the last ones empty; None means as many as needed.

    Returns:
      The same arrays as `[num_rows, row_length, ...]`, zero where there is no token, with
      `positions` (from 0 in each sequence, where it brings none) and `segment_ids`. The first token
      of a sequence gets weight 0 in `loss_weights`, because no token of its sequence predicts it.

    Raises:
      ValueError: if the placement needs more rows than `num_rows`.
    """
    num_rows = placement.num_rows if num_rows is None else num_rows
    if num_rows < placement.num_rows:
        raise ValueError(f"{placement.num_rows} rows are needed but num_rows={num_rows}")
    total = int(placement.length.sum())
    starts = np.cumsum(placement.length) - placement.length
    places = np.arange(total) - np.repeat(starts, placement.length)
    begin = placement.row * row_length + placement.offset
    target = np.repeat(begin, placement.length) + places

    def lay_out(values, dtype):
        rows = np.zeros((num_rows * row_length, *values.shape[1:]), dtype)
        rows[target] = values
        return rows.reshape(num_rows, row_length, *values.shape[1:])

    batch = {}
    for name in sequences[0]:
        values = np.concatenate([sequence[name] for sequence in sequences])
        if len(values) != total:
            raise ValueError(f"{name!r} has {len(values)} entries in all for {total} tokens")
        if name == "loss_weights":
            values = np.where(places > 0, values, 0.0)
        kind = np.float32 if np.issubdtype(values.dtype, np.floating) else np.int32
        batch[name] = lay_out(values, kind)
    batch.setdefault("positions", lay_out(places, np.int32))
    batch["segment_ids"] = lay_out(np.repeat(placement.segment, placement.length), np.int32)
    return batch


def _checked(lengths, row_length):
    lengths = np.asarray(lengths, np.int64)
    if lengths.ndim != 1 or not len(lengths):
        raise ValueError("there are no sequences to pack")
    if lengths.min() < 1:
        raise ValueError(f"sequence {lengths.argmin()} is empty")
    if lengths.max() > row_length:
        raise ValueError(
            f"sequence {lengths.argmax()} has {lengths.max()} tokens, longer than row length"
            f" {row_length}: raise it or truncate"
        )
    return lengths
