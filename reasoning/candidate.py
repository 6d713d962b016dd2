"""Defines `Candidate`: one of several responses, among which a vote or a verifier chooses."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One final response of a search.

    Attributes:
      response: the whole response.
      answer: the answer that the task extracts from it; None if there is none.
      score: the verifier's score, higher is better; None without a verifier.
      tokens: its length in tokens.
      complete: whether it ended by itself and not at a limit.
    """

    response: str
    answer: str | None
    score: float | None
    tokens: int
    complete: bool
