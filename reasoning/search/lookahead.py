"""Lookahead search: beam search that scores a step by its continuation (arXiv:2408.03314, sec. 5).

The search rolls every candidate step out for a few more steps, ranks it by the verifier's score at
the end of the rollout, and throws the rollout away. The rollout's tokens count as spent.
"""

import dataclasses

from models.decoding.sampling import SamplingParams
from reasoning.search.beam import BeamSearch
from reasoning.search.common.scored_paths import Path, ScoredPaths


@dataclasses.dataclass(frozen=True)
class LookaheadSearch(BeamSearch):
    """Beam search that looks `steps` steps ahead.

    Each step comes with its rollout, so the beam is `budget` / (`steps` + 1) paths wide. If that is
    less than two, the search follows one path without rollouts.

    Attributes:
      steps: steps of a rollout (k in the paper).
      greedy: whether a rollout takes the likeliest tokens, as in the paper, or samples them.
    """

    name = "lookahead"

    steps: int = 1
    greedy: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(
                f"steps={self.steps} of lookahead must be at least 1; use beam to search without"
                " lookahead"
            )

    def width(self, budget: int) -> int:
        """Returns the paths of one problem that the budget pays for, with their rollouts."""
        return max(1, budget // (self.steps + 1))

    def rank(self, paths: ScoredPaths, extended: list[list[Path]]) -> list[list[float]]:
        """Returns the score at the end of each path's rollout, or the path's own if it has ended.

        A path without rivals needs no rank, so it is not rolled out.
        """
        ahead, ends = paths.copy(), extended
        sampling = SamplingParams(temperature=0.0) if self.greedy else None
        for _ in range(self.steps):
            rolling = [
                [(path, path.place) for path in each if _goes_on(path, each)] for each in ends
            ]
            if not any(rolling):
                break
            further = [iter(each) for each in ahead.extend(rolling, sampling)]
            ends = [
                [next(further[p]) if _goes_on(path, each) else path for path in each]
                for p, each in enumerate(ends)
            ]
        return super().rank(ahead, ends)


def _goes_on(path: Path, rivals: list[Path]) -> bool:
    """Whether to roll a path out further."""
    return len(rivals) > 1 and not path.ended
