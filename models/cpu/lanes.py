"""Lanes: one program run side by side on parts of its work, where one run leaves cores idle.

Decoding a few dozen rows keeps one core of a CPU busy and no more. XLA lets go of Python's lock
while a program runs, so threads do.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def cpu_cores() -> int:
    """Cores for programs that run side by side: 1 on anything but a CPU that is one device."""
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not Linux.
        return os.cpu_count() or 1


@functools.cache
def kept_threads() -> ThreadPoolExecutor:
    """Threads that last: what is compiled depends on a thread's settings of JAX.

    What runs in them must not wait for them.
    """
    return ThreadPoolExecutor(os.cpu_count(), "lane")


def in_threads(run: Callable[[Any], Any], items: Sequence[Any], threads: int) -> list[Any]:
    """`run` of each item, in order, so many at a time; none is begun once one has failed."""
    if threads == 1:
        return [run(item) for item in items]
    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(run, items))
    finally:
        pool.shutdown(cancel_futures=True)
