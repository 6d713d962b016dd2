"""On-policy distillation (GKD, arXiv:2306.13649, algorithm 1): the student learns where it goes.

The student samples, and the train step moves it towards the teacher's distributions along what it
sampled, where imitation of the teacher's own text would leave it alone with its mistakes. The
loss is that of `train.objectives.distillation`; it does not reach through the sampling.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rl.learner import ProblemStream
from rl.rollouts import Rollouts, RolloutSampler, full_rows_first, pack_rollouts
from train.source import Batch, PackedSource, Source

BATCH_KEYS = ("tokens", "positions", "segment_ids", "loss_weights")


class OnPolicySource(Source):
    """Batches sampled from the weights in training, and from a data set.

    Each batch is on-policy with probability `share` (GKD's lambda), and otherwise the next one of
    `off_policy`. Every completion token has weight 1, the one that ends the response included;
    prompts have none.

    Attributes:
      last: the latest rollouts, to look at. They have no rewards.
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
    ):
        """Args:
        prompts: problems of an on-policy batch.
        rows, row_length: shape of its batch, enough for all completions at full length.
        microbatches: blocks that the train step splits rows into; see `full_rows_first`.
        off_policy: endless batches of the same shape; needed unless `share` is 1.

        Raises:
          ValueError: a share out of range, or one below 1 without `off_policy`.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} of on-policy batches is not within 0..1")
        if share < 1 and off_policy is None:
            raise ValueError(f"share={share}: the other batches need off_policy data")
        self._rollouts, self._problems = rollout_sampler, problems
        self._prompts, self._rows, self._row_length = prompts, rows, row_length
        self._microbatches, self._seed = microbatches, seed
        self._share, self._off_policy = share, off_policy
        self._batches_drawn = 0
        self._metrics: dict[str, float] = {}
        self.last: Rollouts | None = None

    def next(self, state: Any) -> Batch:
        """A dict of `BATCH_KEYS`, each `[rows, row_length]`."""
        rng = np.random.default_rng([self._seed, self._batches_drawn])
        self._batches_drawn += 1
        if rng.random() >= self._share:
            batch = self._off_policy.next()
            counted = float(np.count_nonzero(batch["segment_ids"]))
            self._metrics = {"on_policy": 0.0, "sampled_tokens": 0.0, "sequence_tokens": counted}
            return batch
        start = time.perf_counter()
        self._rollouts.generator.params = state.params
        problems = self._problems.take(self._prompts)
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
        """Of the latest batch: whether it is on-policy, tokens sampled and tokens in all."""
        return self._metrics

    def state_dict(self) -> dict[str, Any]:
        state = {"batches_drawn": self._batches_drawn, "problems_taken": self._problems.taken}
        if self._off_policy is not None:
            state["off_policy"] = self._off_policy.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._batches_drawn = int(state["batches_drawn"])
        self._problems.taken = int(state["problems_taken"])
        if self._off_policy is not None:
            self._off_policy.load_state_dict(state["off_policy"])
