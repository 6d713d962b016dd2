"""A tracker that reads each step once, behind the keys and values of the path it extends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from models.paths.path_pool import PathPool
from models.paths.path_scorer import PathScorer


class StepwiseTracker:
    """See `reasoning.verifiers.Tracker`; a step's score is that of its last token."""

    def __init__(
        self,
        scorer: PathScorer,
        params: Any,
        prompt_ids: Sequence[Sequence[int]],
        step_tokens: int,
    ):
        """Args:
        prompt_ids: of up to `scorer.prompts` problems.
        step_tokens: longest step.
        """
        self._scorer, self._params, self._step_tokens = scorer, params, step_tokens
        self._pool: PathPool = scorer.start(params, prompt_ids)
        # A pool that a copy shares must outlive this one's next step.
        self._shared = True

    def extend(self, parents, into, steps) -> list[list[float]]:
        """See `Tracker`.

        Raises:
          ValueError: a parent that holds no path, a place out of range or given twice, or a step
            or path that is too long.
        """
        shape = (self._scorer.prompts, self._scorer.width)
        rows_from, rows_into = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        tokens = np.zeros((*shape, self._step_tokens), np.int32)
        lengths = np.zeros(shape, np.int32)
        for p, of_problem in enumerate(steps):
            if len(of_problem) > shape[1]:
                raise ValueError(f"problem {p} has {len(of_problem)} steps; width={shape[1]}")
            rows_from[p, : len(of_problem)], rows_into[p, : len(of_problem)] = parents[p], into[p]
            for m, step in enumerate(of_problem):
                if len(step.token_ids) > self._step_tokens:
                    raise ValueError(
                        f"a step of {len(step.token_ids)} tokens exceeds step_tokens="
                        f"{self._step_tokens}"
                    )
                lengths[p, m] = len(step.token_ids)
                tokens[p, m, : lengths[p, m]] = step.token_ids
        self._pool, values = self._scorer.extend(
            self._params, self._pool, rows_from, rows_into, tokens, lengths,
            donate=not self._shared,
        )  # fmt: skip
        self._shared = False
        scores = special.expit(values.last.astype(np.float64))
        return [scores[p, : len(of_problem)].tolist() for p, of_problem in enumerate(steps)]

    def copy(self) -> "StepwiseTracker":
        """See `Tracker`; memory is shared until one of the two steps."""
        twin = object.__new__(StepwiseTracker)
        twin.__dict__.update(self.__dict__)
        self._shared = twin._shared = True
        return twin
