"""One of several responses to a problem, among which a vote or a verifier chooses."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One response that a search arrived at.

    Attributes:
      response: whole, as generated.
      answer: what is found in it, None where nothing is.
      score: of its verifier, higher is better; None without one.
      tokens: its length.
      complete: it ended by itself, not at a limit.
    """

    response: str
    answer: str | None
    score: float | None
    tokens: int
    complete: bool
