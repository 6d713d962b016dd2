"""Supplies the shared training loop with RL batches sampled from the current policy."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from models.decoder import LanguageModel
from models.logprobs import token_logprobs
from models.seeds import derive_seed
from reasoning.problem import Problem
from rl.advantages import (
    group_advantages,
    informative_groups,
    subtract_kl,
    token_weights,
    zero_advantage_groups,
)
from rl.losses import PolicyLossConfig, policy_loss
from rl.reference import ReferenceRenewal
from rl.rollouts import Rollouts, RolloutSampler, full_rows_first, pack_rollouts
from rl.variants import Variant
from train.source import Source


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Settings that turn rollouts into optimizer steps.

    Attributes:
      prompts: problems of a rollout batch; each has as many completions as the group size.
      minibatches: optimizer steps into which a rollout batch is split.
      epochs: passes over a rollout batch.
      rows: rows of a packed minibatch, enough for all its completions at full length.
      microbatches: blocks of rows that one step processes in turn. Blocks without a token to train
        on are skipped, so empty rows cost nothing.
      row_length: tokens of a row, at least the longest prompt plus the longest completion.
      recompute_old: whether the trainer recomputes log-probs before the first update, so that the
        ratios are free of the sampler's rounding (truncated importance sampling needs this).
      max_resamples: extra rollout batches in a step after which dynamic sampling gives up.
    """

    prompts: int
    rows: int
    row_length: int
    microbatches: int = 1
    minibatches: int = 1
    epochs: int = 1
    recompute_old: bool = False
    max_resamples: int = 4

    def __post_init__(self) -> None:
        if self.prompts % self.minibatches:
            raise ValueError(
                f"prompts={self.prompts} cannot be split into {self.minibatches} equal minibatches"
            )
        if self.rows % self.microbatches:
            raise ValueError(
                f"rows={self.rows} cannot be split into {self.microbatches} equal microbatches"
            )


def make_policy_loss(
    model: LanguageModel, config: PolicyLossConfig, temperature: float
) -> Callable[[Any, Mapping[str, Any]], tuple[Any, dict[str, Any]]]:
    """Returns a loss for `train.step.make_train_step`: `(params, batch) -> (loss, metrics)`."""

    def loss_fn(params, batch):
        hidden = model.hidden(params, batch["tokens"], batch["positions"], batch["segment_ids"])
        logprobs, entropy = token_logprobs(
            model, params, hidden, batch["tokens"], temperature=temperature, with_entropy=True
        )
        loss, metrics = policy_loss(logprobs, batch, config)
        trained = batch["loss_weights"] > 0
        metrics["entropy"] = jax.lax.stop_gradient(jax.numpy.where(trained, entropy, 0.0).sum())
        return loss, metrics

    return loss_fn


class ConstantReward:
    """Detects rewards that stay the same for all completions, batch after batch.

    Such rewards give no advantage, so the policy learns nothing. Rewards may be constant for a
    while, for example before a policy earns anything, so this class warns and does not stop the
    run. It warns after `patience` batches and each time that their number has doubled.
    """

    def __init__(self, patience: int = 10):
        self.batches, self._patience = 0, patience

    def update(self, rewards: np.ndarray) -> str | None:
        """Takes the rewards `[P, G]` of a batch; returns a warning for the user, or None."""
        if np.ptp(rewards) > 0:
            self.batches = 0
            return None
        self.batches += 1
        times, rest = divmod(self.batches, self._patience)
        if rest or times & (times - 1):
            return None
        return (
            f"all rewards of {self.batches} rollout batches in a row were {rewards.flat[0]:g}:"
            " nothing is learned from them; see samples.jsonl for the scores and their reasons, and"
            " try easier problems or another reward"
        )


class ProblemStream:
    """Passes over the problems endlessly and reshuffles each pass; its state is one counter."""

    def __init__(self, problems: Sequence[Problem], seed: int):
        if not problems:
            raise ValueError("there are no training problems: check the task and its split")
        self._problems, self._seed, self.taken = list(problems), seed, 0

    def take(self, count: int) -> list[Problem]:
        """Returns the next `count` problems."""
        taken = []
        for _ in range(count):
            epoch, index = divmod(self.taken, len(self._problems))
            rng = np.random.default_rng(derive_seed(self._seed, "epoch", epoch))
            order = rng.permutation(len(self._problems))
            taken.append(self._problems[order[index]])
            self.taken += 1
        return taken


class PolicySource(Source):
    """Samples rollouts with the current parameters and packs them into batches.

    Args:
      reference_params: parameters of the reference policy; required if the variant has a KL term.
      renewal: schedule that replaces the reference by the trained policy; None means never.

    Attributes:
      last: the latest rollouts, for inspection.
    """

    depends_on_state = True

    def __init__(
        self,
        model: LanguageModel,
        rollout_sampler: RolloutSampler,
        problems: ProblemStream,
        variant: Variant,
        config: LearnerConfig,
        *,
        seed: int,
        reference_params: Any = None,
        renewal: ReferenceRenewal | None = None,
    ):
        if variant.loss.beta > 0 and reference_params is None:
            raise ValueError(
                f"the KL coefficient is {variant.loss.beta} but there is no reference policy: give "
                "reference_params or set beta=0"
            )
        if variant.loss.tis_cap is not None and not config.recompute_old:
            raise ValueError(f"tis_cap={variant.loss.tis_cap} needs recompute_old=True: set it")
        self._rollouts, self._problems = rollout_sampler, problems
        self._variant, self._config, self._seed = variant, config, seed
        self._reference = reference_params
        self._renewal = renewal if reference_params is not None else None
        self._batches_drawn = 0
        self._metrics: dict[str, float] = {}
        self._notes: list[str] = []
        self._constant = ConstantReward()
        self.last: Rollouts | None = None

        temperature = rollout_sampler.sampling.temperature

        def logprobs(params, batch):
            def of_rows(rows):
                hidden = model.hidden(
                    params, rows["tokens"], rows["positions"], rows["segment_ids"]
                )
                return token_logprobs(
                    model, params, hidden, rows["tokens"], temperature=temperature
                )

            return jax.lax.map(of_rows, batch)

        self._logprobs = jax.jit(logprobs)

    def next(self, state: Any) -> list[dict[str, np.ndarray]]:
        """Samples the next rollouts and returns the batches of their optimizer steps."""
        if self._renewal is not None:
            self._reference = self._renewal.renewed(self._reference, state.params, int(state.step))
        self._notes = []
        spent = {"sample": 0.0, "reward": 0.0, "tokens": 0}
        clock = time.perf_counter()
        rollouts, metrics = self._informative_rollouts(state.params, spent)
        self.last = rollouts
        batches = self._batches(state.params, rollouts)
        prepare = time.perf_counter() - clock - spent["sample"] - spent["reward"]
        metrics |= {
            "seconds/sample": spent["sample"],
            "seconds/reward": spent["reward"],
            "seconds/prepare": prepare,
            "tokens_per_second/sample": spent["tokens"] / spent["sample"],
        }
        self._metrics = metrics
        return batches

    def metrics(self) -> Mapping[str, float]:
        """Returns times, rewards and lengths of the latest rollouts, before dynamic sampling."""
        return self._metrics

    def notes(self) -> list[str]:
        """Returns warnings about the latest rewards: killed calls, or one reward for all."""
        return self._notes

    def _draw(self, params, spent) -> Rollouts:
        problems = self._problems.take(self._config.prompts)
        seed = derive_seed(self._seed, "rollouts", self._batches_drawn)
        self._batches_drawn += 1
        start = time.perf_counter()
        self._rollouts.generator.params = params
        rollouts = self._rollouts.generate(problems, seed)
        sampled = time.perf_counter()
        rollouts = self._rollouts.score(rollouts)
        self._notes += rollouts.notes
        if note := self._constant.update(rollouts.rewards):
            self._notes.append(note)
        spent["sample"] += sampled - start
        spent["reward"] += time.perf_counter() - sampled
        spent["tokens"] += int(rollouts.lengths.sum())
        return rollouts

    def _informative_rollouts(self, params, spent):
        rollouts = self._draw(params, spent)
        # Metrics cover all sampled problems: a selection would misrepresent the policy.
        metrics = rollouts.metrics()
        metrics["zero_advantage_groups"] = float(zero_advantage_groups(rollouts.rewards).mean())
        if not self._variant.dynamic_sampling:
            return rollouts, metrics
        wanted, draws = self._config.prompts, 1
        kept = rollouts.select(informative_groups(self._filter_scores(rollouts)))
        while len(kept.problems) < wanted and draws <= self._config.max_resamples:
            more = self._draw(params, spent)
            kept = kept.join(more.select(informative_groups(self._filter_scores(more))))
            draws += 1
        # Fill up with other groups: a group without advantage costs nothing, and a group whose
        # rewards differ in more than accuracy still teaches that difference.
        if len(kept.problems) < wanted:
            spare = np.flatnonzero(zero_advantage_groups(self._filter_scores(rollouts)))
            kept = kept.join(rollouts.select(spare[: wanted - len(kept.problems)]))
        metrics["rollout_batches"] = float(draws)
        return kept.select(range(min(wanted, len(kept.problems)))), metrics

    def _filter_scores(self, rollouts: Rollouts) -> np.ndarray:
        """Returns the accuracy, by which DAPO filters, or else the total reward."""
        return rollouts.by_reward.get("accuracy", rollouts.rewards)

    def _batches(self, params, rollouts: Rollouts) -> list[dict[str, np.ndarray]]:
        parts = np.array_split(np.arange(len(rollouts.problems)), self._config.minibatches)
        batches = [self._minibatch(params, rollouts.select(part)) for part in parts]
        return batches * self._config.epochs

    def _minibatch(self, params, rollouts: Rollouts) -> dict[str, np.ndarray]:
        variant, config = self._variant, self._config
        kl_in = variant.loss.kl_in if variant.loss.beta > 0 else None
        rewards = self._penalised(rollouts) if kl_in == "reward" else rollouts.rewards
        advantages = group_advantages(rewards, variant.advantage)
        lengths = rollouts.lengths
        budget = self._rollouts.max_new_tokens if variant.aggregation == "constant" else None
        weights = token_weights(lengths.ravel(), variant.aggregation, budget)
        weights = weights.reshape(lengths.shape)
        if kl_in != "loss":
            # A completion without advantage has no gradient unless the loss has a KL term.
            weights = np.where(advantages == 0, 0.0, weights)
        batch, _ = pack_rollouts(rollouts, advantages, weights, config.rows, config.row_length)
        if config.recompute_old:
            batch["old_logprobs"] = self._trainer_logprobs(params, batch)
        if kl_in == "loss":
            batch["reference_logprobs"] = self._trainer_logprobs(self._reference, batch)
        return full_rows_first(batch, config.microbatches)

    def _penalised(self, rollouts: Rollouts) -> np.ndarray:
        """Returns rewards minus the KL to the reference policy, summed over each completion."""
        ones = np.ones_like(rollouts.rewards)
        batch, spans = pack_rollouts(
            rollouts, ones, ones, self._config.rows, self._config.row_length
        )
        logprobs = self._trainer_logprobs(self._reference, batch)
        lengths = rollouts.lengths.ravel()
        mask = np.arange(lengths.max()) < lengths[:, None]
        policy, reference = np.zeros(mask.shape), np.zeros(mask.shape)
        # `pack_rollouts` above refused completions without log-probabilities.
        sampled: list[Any] = [c.logprobs for group in rollouts.completions for c in group]
        policy[mask] = np.concatenate(sampled)
        reference[mask] = np.concatenate([logprobs[span] for span in spans])
        loss = self._variant.loss
        return subtract_kl(rollouts.rewards, policy, reference, mask, loss.beta, loss.kl_estimator)

    def _trainer_logprobs(self, params, batch) -> np.ndarray:
        inputs = {name: batch[name] for name in ("tokens", "positions", "segment_ids")}
        rows = len(batch["tokens"])
        blocks = self._config.microbatches
        blocked = {name: x.reshape(blocks, rows // blocks, -1) for name, x in inputs.items()}
        return np.asarray(self._logprobs(params, blocked)).reshape(rows, -1)

    def state_dict(self) -> Mapping[str, int]:
        """Returns the counters that a checkpoint must hold to resume this source."""
        state = {
            "batches_drawn": self._batches_drawn,
            "problems_taken": self._problems.taken,
            "constant_batches": self._constant.batches,
        }
        return state | (self._renewal.state_dict() if self._renewal is not None else {})

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restores what `state_dict` returned."""
        self._batches_drawn = int(state["batches_drawn"])
        self._problems.taken = int(state["problems_taken"])
        self._constant.batches = int(state["constant_batches"])
        if self._renewal is not None:
            self._reference = self._renewal.restored(self._reference, state)
