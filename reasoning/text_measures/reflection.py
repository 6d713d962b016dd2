"""Self-checks in a chain of thought: the words by which DeepSeek-R1's authors count them.

arXiv:2501.12948, "aha moment": reflective words become more frequent as R1-Zero is trained.
"""

import re

# The paper's list, and what stands for "wait" in the tiny world's German.
WORDS = (
    "wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check",
    "halt",
)  # fmt: skip
_WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


def count_self_checks(chain: str) -> int:
    """How many reflective words a chain has."""
    return len(_WORD.findall(chain))
