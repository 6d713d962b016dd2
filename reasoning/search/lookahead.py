"""Lookahead search: a step is worth what it leads to (arXiv:2408.03314, section 5).

Beam search whose candidate steps are each rolled out some steps further; the verifier's score at
the end of the rollout ranks them, and the rollout is thrown away. Its tokens count as spent.
"""

import dataclasses

from models.decoding.sampling import SamplingParams
from reasoning.search.beam import BeamSearch
from reasoning.search.common.scored_paths import Path, ScoredPaths


@dataclasses.dataclass(frozen=True)
class LookaheadSearch(BeamSearch):
    """Beam search that looks `steps` steps ahead.

    A budget of N pays for N / (steps + 1) paths, since each step is sampled with its rollout, and
    for one without rollouts where that is less than two.

    Attributes:
      steps: k, of a rollout.
      greedy: roll out the likeliest tokens (as in the paper), or sample them.
    """

    name = "lookahead"

    steps: int = 1
    greedy: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(
                f"steps={self.steps} of lookahead must be at least 1; without lookahead use beam"
            )

    def width(self, budget: int) -> int:
        """See `StepSearch`."""
        return max(1, budget // (self.steps + 1))

    def rank(self, paths: ScoredPaths, extended: list[list[Path]]) -> list[list[float]]:
        """The score at the end of each path's rollout; its own where it has ended.

        A path without rivals needs no rank, and is not rolled out.
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
    return len(rivals) > 1 and not path.ended
