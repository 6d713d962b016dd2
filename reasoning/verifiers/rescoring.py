"""A tracker that stores paths as text and tokens, and scores a whole path again after each step.

It works with every verifier and generator, but reads a path again for each step. `stepwise` reads
each step once, for learned verifiers that share the generator's tokenizer.
"""

import dataclasses
from collections.abc import Callable, Sequence

from reasoning.generation.steps import Places, Step


@dataclasses.dataclass(frozen=True)
class ResponseSoFar:
    """A partial response.

    Attributes:
      problem: index of its problem.
      token_ids: its tokens.
      text: its text.
      finish: how its last step ended; see `reasoning.generation.steps.Step`.
    """

    problem: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish: str = ""

    @property
    def ended(self) -> bool:
        """Whether the response is complete or has reached its length limit."""
        return self.finish in ("stop", "length")


class RescoringTracker:
    """A `reasoning.verifiers.Tracker` that scores whole paths with any function."""

    def __init__(
        self,
        num_problems: int,
        capacity: int,
        score: Callable[[Sequence[ResponseSoFar]], Sequence[float]],
    ):
        """Makes a tracker without paths.

        Args:
          num_problems: problems of the search.
          capacity: places of each problem.
          score: returns one score for each of many paths.
        """
        self._capacity, self._score = capacity, score
        self._paths = [{-1: ResponseSoFar(i)} for i in range(num_problems)]

    def extend(
        self, parents: Places, into: Places, steps: Sequence[Sequence[Step]]
    ) -> list[list[float]]:
        """Extends paths by one step each and scores them; see `Tracker`.

        Raises:
          ValueError: a parent holds no path, or a target place is out of range or given twice.
        """
        grown: list[list[ResponseSoFar]] = []
        for i, held in enumerate(self._paths):
            if len(set(into[i])) < len(into[i]):
                raise ValueError(
                    f"problem {i}: places {list(into[i])} are not distinct; give each new path its"
                    " own place"
                )
            grown.append([])
            for parent, place, step in zip(parents[i], into[i], steps[i], strict=True):
                if parent not in held:
                    raise ValueError(f"problem {i}: place {parent} holds no path to extend")
                if not 0 <= place < self._capacity:
                    raise ValueError(
                        f"problem {i}: place {place} is not one of the places"
                        f" 0..{self._capacity - 1}"
                    )
                path = held[parent]
                grown[-1].append(
                    ResponseSoFar(
                        i,
                        (*path.token_ids, *step.token_ids),
                        path.text + step.text,
                        step.finish,
                    )
                )
        for held, places, paths in zip(self._paths, into, grown):
            held.update(zip(places, paths))
        scores = iter(self._score([path for paths in grown for path in paths]))
        return [[float(next(scores)) for _ in paths] for paths in grown]

    def copy(self) -> "RescoringTracker":
        """Returns an independent tracker with the same paths; see `Tracker`."""
        twin = RescoringTracker(0, self._capacity, self._score)
        twin._paths = [dict(held) for held in self._paths]
        return twin
