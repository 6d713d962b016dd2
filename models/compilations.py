"""How many programs JAX has compiled, for tests that nothing is compiled twice."""

from typing import Any


def count_programs(*jitted: Any) -> int:
    """Programs that functions made by `jax.jit` hold; JAX has no public name for this."""
    return sum(each._cache_size() for each in jitted)
