"""Computes and stores a teacher's k most likely tokens at every trained token of a data set."""

import functools
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.files import atomic_file
from models.sharding import batch_sharding
from models.tokens.packing import pack, place
from train.data import Example
from train.objectives.distillation import top_logprobs

KEYS = ("teacher_ids", "teacher_logprobs")


def compute(
    teacher: Any,
    params: Any,
    examples: Sequence[Example],
    k: int,
    *,
    mesh: Mesh,
    rows: int,
    row_length: int,
    temperature: float = 1.0,
    vocab: int | None = None,
) -> list[Example]:
    """Returns the examples with `teacher_ids` and `teacher_logprobs`, `[length, k]` each.

    They are made for `make_top_loss`, and 0 at tokens that are not trained on.

    Args:
      teacher: a `LanguageModel`.
      params: the teacher's parameters, on `mesh`.
      examples: the data set.
      k: tokens to keep at each place.
      mesh: the devices.
      rows, row_length: shape of the packed batches that the teacher reads.
      temperature, vocab: see `top_logprobs`.

    Raises:
      ValueError: an example is longer than a row, or k is out of range.
    """
    placement = place([len(example["tokens"]) for example in examples], row_length)
    packed = pack(examples, placement, row_length, -(-placement.num_rows // rows) * rows)
    inputs = {name: packed[name] for name in ("tokens", "positions", "segment_ids")}
    top = jax.jit(
        functools.partial(top_logprobs, teacher, k=k, temperature=temperature, vocab=vocab)
    )
    in_row: dict[int, list[int]] = {}
    for i, row in enumerate(placement.row):
        in_row.setdefault(int(row), []).append(i)
    result: list[Example] = [{}] * len(examples)
    for start in range(0, placement.num_rows, rows):
        block = {name: x[start : start + rows] for name, x in inputs.items()}
        with jax.set_mesh(mesh):
            found = top(params, jax.device_put(block, batch_sharding(mesh)))
        found = [np.asarray(x) for x in found]
        for row in range(start, start + rows):
            for i in in_row.get(row, ()):
                begin = placement.offset[i]
                trained = (examples[i]["loss_weights"] > 0)[:, None]
                spans = [x[row - start, begin : begin + placement.length[i]] for x in found]
                arrays = [np.where(trained, span, 0).astype(span.dtype) for span in spans]
                result[i] = {**examples[i], **dict(zip(KEYS, arrays))}
    return result


def save(path: str | os.PathLike, examples: Sequence[Example]) -> None:
    """Writes the arrays that `compute` added into a `.npz` file, whole or not at all."""
    path = Path(path)
    arrays: dict[str, Any] = {
        name: np.concatenate([e[name][e["loss_weights"] > 0] for e in examples]) for name in KEYS
    }
    with atomic_file(path, "wb") as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike, examples: Sequence[Example]) -> list[Example]:
    """Returns the examples with the arrays that `save` has written for them.

    Raises:
      ValueError: the file is damaged, or belongs to other examples.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in KEYS}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and the same command makes it again"
        ) from None
    masks = [example["loss_weights"] > 0 for example in examples]
    ends = np.cumsum([mask.sum() for mask in masks])
    if ends[-1] != len(arrays[KEYS[0]]):
        raise ValueError(
            f"{path} holds {len(arrays[KEYS[0]])} tokens but the data {ends[-1]}: it belongs to"
            " other data; remove it"
        )
    result = []
    for example, mask, end in zip(examples, masks, ends, strict=True):
        spread = {}
        for name, values in arrays.items():
            spread[name] = np.zeros((len(mask), values.shape[1]), values.dtype)
            spread[name][mask] = values[end - mask.sum() : end]
        result.append({**example, **spread})
    return result
