"""Derives the seeds of a run's parts from the run's one seed."""

import hashlib


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Returns a seed for one purpose of a run.

    Seeds of different purposes are independent, and so are those of one purpose in runs of
    different seeds. They are the same on every machine and in every version of Python and NumPy.

    Args:
      seed: the seed of the run.
      purpose: what the derived seed is for, as words and numbers, such as `("epoch", 3)`.

    Returns:
      An integer from 0 to 2**31 - 1, which JAX, NumPy, Python and servers take as a seed.
    """
    digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
