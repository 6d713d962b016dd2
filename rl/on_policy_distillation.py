"""On-policy distillation: the student learns on its own samples (GKD, arXiv:2306.13649).

As in algorithm 1, the student samples, and the train step moves it towards the teacher's
distributions along its own samples. Imitation of the teacher's texts alone would never correct the
student's own mistakes. The loss is that of `train.objectives.distillation`; it has no gradient
through the sampling.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from models.seeds import derive_seed
from rl.packed_rollouts import full_rows_first, pack_rollouts
from rl.problem_stream import ProblemStream
from rl.rollouts import Rollouts, RolloutSampler
from train.source import Batch, PackedSource, Source

BATCH_KEYS = ("tokens", "positions", "segment_ids", "loss_weights")


class OnPolicySource(Source):
    """Yields batches sampled from the weights in training, and batches from a data set.

    Each batch is on-policy with probability `share` (GKD's lambda); otherwise it is the next one of
    `off_policy`. Every completion token has weight 1, also the one that ends the response; prompt
    tokens have weight 0.

    Args:
      rollout_sampler: samples from the student.
      problems: the problems to sample from.
      prompts: the number of problems in an on-policy batch.
      rows, row_length: the shape of the batch, large enough for all completions at full length.
      seed: decides all random draws.
      microbatches: the number of blocks that the train step splits rows into; see
        `full_rows_first`.
      share: the probability of an on-policy batch, from 0 to 1.
      off_policy: endless batches of the same shape; required unless `share` is 1.
      merge: parameters in training -> those of the sampler; see `LanguageModel.merge`.

    Attributes:
      last: the latest rollouts, for inspection. They have no rewards.

    Raises:
      ValueError: `share` is out of range, or it is below 1 without `off_policy`.
    """

    depends_on_state = True

    def __init__(
        self,
        rollout_sampler: RolloutSampler,
        problems: ProblemStream,
        *,
        prompts: int,
        rows: int,
        row_length: int,
        seed: int,
        microbatches: int = 1,
        share: float = 1.0,
        off_policy: PackedSource | None = None,
        merge: Callable[[Any], Any] = lambda params: params,
    ):
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} of on-policy batches: give a number from 0 to 1")
        if share < 1 and off_policy is None:
            raise ValueError(f"share={share}: give off_policy data for the other batches")
        self._rollouts, self._problems = rollout_sampler, problems
        self._prompts, self._rows, self._row_length = prompts, rows, row_length
        self._microbatches, self._seed = microbatches, seed
        self._share, self._off_policy, self._merge = share, off_policy, merge
        self._batches_drawn = 0
        self._metrics: dict[str, float] = {}
        self.last: Rollouts | None = None

    def next(self, state: Any) -> Batch:
        """Returns the next batch: a dict of `BATCH_KEYS`, each `[rows, row_length]`."""
        rng = np.random.default_rng(derive_seed(self._seed, self._batches_drawn))
        self._batches_drawn += 1
        if rng.random() >= self._share:
            batch = self._off_policy.next()
            counted = float(np.count_nonzero(batch["segment_ids"]))
            self._metrics = {"on_policy": 0.0, "sampled_tokens": 0.0, "sequence_tokens": counted}
            return batch
        start = time.perf_counter()
        problems = self._problems.take(self._prompts)
        # Merged weights would take memory in training, so the generator drops them at the end.
        with self._rollouts.generator.holding(self._merge(state.params)):
            rollouts = self._rollouts.generate(problems, int(rng.integers(2**31)))
        ones = np.ones_like(rollouts.rewards)
        batch, _ = pack_rollouts(rollouts, ones, ones, self._rows, self._row_length)
        batch = full_rows_first(batch, self._microbatches)
        self.last = rollouts
        self._metrics = {
            "on_policy": 1.0,
            "sampled_tokens": float(rollouts.lengths.sum()),
            "sequence_tokens": float(np.count_nonzero(batch["segment_ids"])),
            "response_tokens": float(rollouts.lengths.mean()),
            "seconds/sample": time.perf_counter() - start,
        }
        return {name: batch[name] for name in BATCH_KEYS}

    def metrics(self) -> Mapping[str, float]:
        """Returns whether the latest batch is on-policy, and counts of its tokens."""
        return self._metrics

    def state_dict(self) -> dict[str, Any]:
        """Returns the position in the problems and the data, for a checkpoint."""
        state: dict[str, Any] = {
            "batches_drawn": self._batches_drawn,
            **self._problems.state_dict(),
        }
        if self._off_policy is not None:
            state["off_policy"] = self._off_policy.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the position that `state_dict` returned."""
        self._batches_drawn = int(state["batches_drawn"])
        self._problems.load_state_dict(state)
        if self._off_policy is not None:
            self._off_policy.load_state_dict(state["off_policy"])
