"""What a student is taught with: sources mixed, kept clean of the evaluation, short chains first.

Records are dicts that hold a chat under `messages`, as `reasoning.training_data.teacher_data` writes
them. What happens to chains that are too long for a row is decided when they are packed
(`train.source.PackedSource`: error, truncate or drop).
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from reasoning.training_data.curation import Decontaminator

T = TypeVar("T")


def mix(sources: Mapping[str, Sequence[T]], shares: Mapping[str, float], seed: int) -> list[T]:
    """The largest mixture with these shares that repeats nothing, in random order.

    Args:
      sources: name -> records.
      shares: name -> weight, in any unit; 0 leaves a source out.

    Raises:
      ValueError: a weight below 0, no weight above, or a source of some weight that is empty.
    """
    if bad := [name for name in sources if not shares[name] >= 0]:
        raise ValueError(f"data share {shares[bad[0]]} of {bad[0]}: it must be at least 0")
    wanted = {name: shares[name] for name in sources if shares[name] > 0}
    if not wanted:
        raise ValueError(f"no source has a share above 0: {', '.join(sources)}")
    if empty := [name for name in wanted if not len(sources[name])]:
        raise ValueError(f"{empty[0]} holds no records to mix in: give it a share of 0")
    # Records per unit of weight, as the scarcest source has them.
    rate = min(len(sources[name]) / share for name, share in wanted.items())
    rng, mixture = np.random.default_rng([seed, 0]), []
    for name, share in wanted.items():
        order = rng.permutation(len(sources[name]))
        # Never none; the scarcest one whole, whatever the rounding.
        count = min(len(order), max(1, round(rate * share)))
        mixture += [sources[name][i] for i in order[:count]]
    return [mixture[i] for i in rng.permutation(len(mixture))]


def clean(
    records: Sequence[Mapping[str, Any]], decontaminator: Decontaminator
) -> list[Mapping[str, Any]]:
    """The records of which no message shares n words in a row with the evaluation."""
    return [
        record
        for record in records
        if not any(decontaminator.shared(message["content"]) for message in record["messages"])
    ]


def short_first(lengths: Sequence[int], stages: int, seed: int) -> np.ndarray:
    """A curriculum: the order that goes through `stages` quantiles of length, shortest first.

    Within a stage the order is random.

    Raises:
      ValueError: fewer than one stage.
    """
    if stages < 1:
        raise ValueError(f"curriculum of {stages} stages: give at least 1, which shuffles")
    rng = np.random.default_rng([seed, 1])
    by_length = np.argsort(lengths, kind="stable")
    parts = np.array_split(by_length, stages)
    return np.concatenate([rng.permutation(part) for part in parts])
