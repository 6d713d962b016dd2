"""A reward that costs nothing; workers import it, so it must not import JAX."""

from typing import Any


def share_of_spaces(prompt: str, completion: str, problem: Any) -> float:
    """Returns the share of spaces in a completion."""
    return completion.count(" ") / max(1, len(completion))
