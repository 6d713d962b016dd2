"""Samples the next rollouts with the weights from before an update, so that both can run at a time.

The rollouts of an iteration then come from weights that are one iteration old. What is sampled does
not depend on whether sampling and training overlap: only the time does.
"""

import concurrent.futures
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax

T = TypeVar("T")


class Ahead(Generic[T]):
    """Holds at most one set of rollouts that was begun before an update.

    Args:
      sample: params -> rollouts. It gets its own copy of the weights, since the update reuses the
        buffers of the original.
      overlap: whether to sample in a thread during the update. Otherwise sampling waits until its
        result is taken. On a CPU, overlapping programs need more threads than XLA has by itself;
        see `launch.parts.runtime.give_overlapping_programs_threads`.
    """

    def __init__(self, sample: Callable[[Any], T], overlap: bool):
        self._sample = sample
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "rollouts") if overlap else None
        self._pending: Callable[[], T] | None = None

    def start(self, params: Any) -> None:
        """Begins to sample with a copy of `params`."""
        params = jax.block_until_ready(jax.tree.map(lambda x: x.copy(), params))
        if self._pool is None:
            self._pending = lambda: self._sample(params)
            return
        mesh = jax.sharding.get_mesh()  # Each thread has its own.

        def run():
            with jax.set_mesh(mesh):
                return self._sample(params)

        self._pending = self._pool.submit(run).result

    def take(self) -> T | None:
        """Returns what was begun, when it is finished; None if nothing was begun."""
        pending, self._pending = self._pending, None
        return None if pending is None else pending()

    def close(self) -> None:
        """Drops what was begun, and waits for the thread."""
        self._pending = None
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
