"""A tracker that keeps paths as they are written, and scores each anew when it grows.

It works for every verifier and generator, at the price of reading a path again for each step.
"""

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class ResponseSoFar:
    """A response so far.

    Attributes:
      problem: index of its problem.
      finish: how its last step ended.
    """

    problem: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is a whole response, or as long as one may be."""
        return self.finish in ("stop", "length")


class RescoringTracker:
    """See `reasoning.verifiers.Tracker`."""

    def __init__(
        self,
        num_problems: int,
        capacity: int,
        score: Callable[[Sequence[ResponseSoFar]], Sequence[float]],
    ):
        """Args:
        score: scores whole paths in one go.
        """
        self._capacity, self._score = capacity, score
        self._paths = [{-1: ResponseSoFar(i)} for i in range(num_problems)]

    def extend(self, parents, into, steps) -> list[list[float]]:
        """See `Tracker`.

        Raises:
          ValueError: a parent that holds no path, or a place out of range or given twice.
        """
        grown: list[list[ResponseSoFar]] = []
        for i, held in enumerate(self._paths):
            if len(set(into[i])) < len(into[i]):
                raise ValueError(f"problem {i}: places {list(into[i])} are not distinct")
            grown.append([])
            for parent, place, step in zip(parents[i], into[i], steps[i], strict=True):
                if parent not in held:
                    raise ValueError(f"problem {i}: place {parent} holds no path to extend")
                if not 0 <= place < self._capacity:
                    raise ValueError(
                        f"problem {i}: place {place} is not within the {self._capacity} places"
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
        twin = RescoringTracker(0, self._capacity, self._score)
        twin._paths = [dict(held) for held in self._paths]
        return twin
