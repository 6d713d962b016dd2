"""A tracker that reads each step once, by keeping the keys and values of every path.

It serves learned verifiers that share the generator's tokenizer; `rescoring` serves all others.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from models.paths.path_pool import PathPool
from models.paths.path_scorer import PathScorer
from reasoning.generation.steps import Places, Step


class StepwiseTracker:
    """A `reasoning.verifiers.Tracker`; the score of a step is the value of its last token."""

    def __init__(
        self,
        scorer: PathScorer,
        params: Any,
        prompt_ids: Sequence[Sequence[int]],
        step_tokens: int,
    ):
        """Reads the prompts.

        Args:
          scorer: the compiled scorer of paths.
          params: its model's parameters.
          prompt_ids: token ids of the prompts of up to `scorer.prompts` problems.
          step_tokens: most tokens of a step.
        """
        self._scorer, self._params, self._step_tokens = scorer, params, step_tokens
        self._pool: PathPool = scorer.start(params, prompt_ids)
        # While copies share the pool, the next step must not donate its memory.
        self._shared = True

    def extend(
        self, parents: Places, into: Places, steps: Sequence[Sequence[Step]]
    ) -> list[list[float]]:
        """Extends paths by one step each and scores the steps; see `Tracker`.

        Raises:
          ValueError: a parent holds no path, a target place is out of range or given twice, or a
            step or path is too long.
        """
        shape = (self._scorer.prompts, self._scorer.width)
        rows_from, rows_into = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        tokens = np.zeros((*shape, self._step_tokens), np.int32)
        lengths = np.zeros(shape, np.int32)
        for p, of_problem in enumerate(steps):
            if len(of_problem) > shape[1]:
                raise ValueError(
                    f"problem {p} has {len(of_problem)} steps; width={shape[1]} allows no more:"
                    " start the tracker with a larger width"
                )
            rows_from[p, : len(of_problem)], rows_into[p, : len(of_problem)] = parents[p], into[p]
            for row, step in enumerate(of_problem):
                if len(step.token_ids) > self._step_tokens:
                    raise ValueError(
                        f"a step of {len(step.token_ids)} tokens exceeds step_tokens="
                        f"{self._step_tokens}: start the tracker with a larger step_tokens"
                    )
                lengths[p, row] = len(step.token_ids)
                tokens[p, row, : lengths[p, row]] = step.token_ids
        self._pool, values = self._scorer.extend(
            self._params, self._pool, rows_from, rows_into, tokens, lengths,
            donate=not self._shared,
        )  # fmt: skip
        self._shared = False
        scores = special.expit(values.last.astype(np.float64))
        return [scores[p, : len(of_problem)].tolist() for p, of_problem in enumerate(steps)]

    def copy(self) -> "StepwiseTracker":
        """Returns an independent tracker; see `Tracker`.

        The two share memory until one of them is extended.
        """
        twin = object.__new__(StepwiseTracker)
        twin.__dict__.update(self.__dict__)
        self._shared = twin._shared = True
        return twin
