"""What the processes of one job tell each other: who writes, who computes what, whether all agree.

A job on a pod or a cluster runs the same program in several processes, each with devices of its
own. Everything here works without JAX's distributed runtime, too: then there is one process.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def count() -> int:
    """Returns the number of processes of this job."""
    # Programs that do not use JAX need not import it, nor start its backend, to write a file.
    jax = sys.modules.get("jax")
    return jax.process_count() if jax is not None and jax.distributed.is_initialized() else 1


def index() -> int:
    """Returns the number of this process, from 0."""
    return sys.modules["jax"].process_index() if count() > 1 else 0


def is_main() -> bool:
    """Tells whether this process is the one that writes files and speaks to the user."""
    return index() == 0


def gathered(value: Any) -> list[Any]:
    """Returns the JSON-able value that each process has given, in the order of the processes.

    Every process must call this; it waits for all of them.
    """
    if count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(mine))))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(mine)] = mine
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def from_main(value: T) -> T:
    """Returns what the main process has given, a JSON-able value, in every process.

    For decisions that depend on files, which the main process may be changing.
    """
    return value if count() == 1 else gathered(value if is_main() else None)[0]


def check_agreed(what: str, value: Any) -> None:
    """Stops the job if processes hold different values of something that must be equal.

    Args:
      what: names the value in the error, in the plural.
      value: a JSON-able value.

    Raises:
      ValueError: the values differ, in every process alike.
    """
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    digests = gathered(digest)
    if different := [i for i, other in enumerate(digests) if other != digests[0]]:
        raise ValueError(
            f"{what} differ between the processes of this job: process {different[0]} does not have"
            " those of process 0. All processes must run the same code with the same data and the"
            " same environment"
        )


def divided(items: Sequence[Any], work: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
    """Lets each process do its share of some work; returns all results in every process.

    Args:
      items: the same sequence in every process.
      work: some of the items -> a JSON-able result for each.

    Raises:
      Exception: what `work` raised in this process.
      ValueError: `work` raised something in another process. So no process waits for one that has
        failed.
    """
    if count() == 1:
        return work(items)
    error, mine = None, []
    try:
        mine = work(items[index() :: count()])
    except Exception as raised:
        error = raised
    found = gathered({"fault": None if error is None else str(error), "results": mine})
    if error is not None:
        raise error
    for process, part in enumerate(found):
        if part["fault"] is not None:
            raise ValueError(f"process {process}: {part['fault']}")
    return [found[i % count()]["results"][i // count()] for i in range(len(items))]
