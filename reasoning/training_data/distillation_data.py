"""Prepares the data of a student: mixes sources, drops texts of the evaluation, orders by length.

Records are dicts with a chat under `messages`, as `reasoning.training_data.teacher_data` writes
them. The packing decides what happens to a chain that is too long for a row
(`train.source.PackedSource`: error, truncate or drop).
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from models.seeds import derive_seed
from reasoning.training_data.curation import Decontaminator

T = TypeVar("T")


def mix(sources: Mapping[str, Sequence[T]], shares: Mapping[str, float], seed: int) -> list[T]:
    """Returns the largest mixture with these shares that repeats no record, in random order.

    Args:
      sources: name -> records.
      shares: name -> weight, in any unit; 0 leaves a source out.
      seed: decides which records are taken, and their order.

    Raises:
      ValueError: a weight is below 0, no weight is above 0, or a source with a weight is empty.
    """
    if bad := [name for name in sources if not shares[name] >= 0]:
        raise ValueError(f"the data share of {bad[0]} is {shares[bad[0]]}: give at least 0")
    wanted = {name: shares[name] for name in sources if shares[name] > 0}
    if not wanted:
        raise ValueError(f"no source has a share above 0: give one to any of {', '.join(sources)}")
    if empty := [name for name in wanted if not len(sources[name])]:
        raise ValueError(f"{empty[0]} holds no records to mix in: give it a share of 0")
    # This many records per unit of weight use up the scarcest source.
    rate = min(len(sources[name]) / share for name, share in wanted.items())
    rng, mixture = np.random.default_rng(derive_seed(seed, "mixture")), []
    for name, share in wanted.items():
        order = rng.permutation(len(sources[name]))
        # Each source gives at least one record, and rounding never exceeds the scarcest source.
        count = min(len(order), max(1, round(rate * share)))
        mixture += [sources[name][i] for i in order[:count]]
    return [mixture[i] for i in rng.permutation(len(mixture))]


def clean(
    records: Sequence[Mapping[str, Any]], decontaminator: Decontaminator
) -> list[Mapping[str, Any]]:
    """Keeps the records that have no message with n words in a row from the evaluation."""
    return [
        record
        for record in records
        if not any(decontaminator.shared(message["content"]) for message in record["messages"])
    ]


def short_first(lengths: Sequence[int], stages: int, seed: int) -> np.ndarray:
    """Returns a curriculum: an order through `stages` quantiles of length, the shortest first.

    The order within a stage is random.

    Args:
      lengths: the length of each record.
      stages: the number of quantiles.
      seed: decides the order within a stage.

    Raises:
      ValueError: there is less than one stage.
    """
    if stages < 1:
        raise ValueError(f"curriculum of {stages} stages: give at least 1, which shuffles")
    rng = np.random.default_rng(derive_seed(seed, "curriculum"))
    by_length = np.argsort(lengths, kind="stable")
    parts = np.array_split(by_length, stages)
    return np.concatenate([rng.permutation(part) for part in parts])
