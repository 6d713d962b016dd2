"""Counts self-checks in a chain of thought, by the words that DeepSeek-R1's authors count.

arXiv:2501.12948, "aha moment": reflective words become more frequent as R1-Zero is trained.
"""

import re

# The list of the paper, and "halt", which means "wait" in the German of the tiny world.
WORDS = (
    "wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check",
    "halt",
)  # fmt: skip
_WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


def count_self_checks(chain: str) -> int:
    """Returns the number of reflective words in a chain of thought."""
    return len(_WORD.findall(chain))
