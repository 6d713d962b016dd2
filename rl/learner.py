"""Supplies the shared training loop with RL batches sampled from the current policy."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from models.decoder import LanguageModel
from models.decoding.samples import Samples, SamplingStopped
from models.logprobs import token_logprobs
from models.seeds import derive_seed
from models.sharding import constrain
from rl.advantages import (
    group_advantages,
    informative_groups,
    subtract_kl,
    token_weights,
    zero_advantage_groups,
)
from rl.ahead import Ahead
from rl.kept_rollouts import KeptRollouts
from rl.losses import PolicyLossConfig, policy_loss
from rl.packed_rollouts import full_rows_first, pack_rollouts
from rl.problem_stream import ProblemStream
from rl.reference import ReferenceRenewal, completed
from rl.rollouts import Rollouts, RolloutSampler
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
      share_prompts: whether completions in one row share a copy of their prompt. Rows should then
        have room for several.
      recompute_old: whether the trainer recomputes log-probs before the first update, so that the
        ratios are free of the sampler's rounding (truncated importance sampling needs this).
      staleness: 0 samples with the weights in training; 1 samples with those of one iteration
        before, while the update runs. That needs an importance correction in the loss.
      fresh_every: with staleness, the first iteration after each multiple of this many updates is
        sampled with the weights in training. A run that is resumed at such a step goes on as if
        undisturbed, without the older weights.
      overlap: whether sampling and updates run at a time, with staleness (`rl.ahead`).
      max_resamples: extra rollout batches in a step after which dynamic sampling gives up.
    """

    prompts: int
    rows: int
    row_length: int
    share_prompts: bool = False
    microbatches: int = 1
    minibatches: int = 1
    epochs: int = 1
    recompute_old: bool = False
    max_resamples: int = 4
    staleness: int = 0
    fresh_every: int = 1
    overlap: bool = False

    def __post_init__(self) -> None:
        if self.staleness not in (0, 1) or self.fresh_every < 1:
            raise ValueError(
                f"staleness={self.staleness}, fresh_every={self.fresh_every}: staleness is 0 or 1,"
                " fresh_every at least 1"
            )
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
        hidden = _hidden(model, params, batch)
        logprobs, entropy = token_logprobs(
            model, params, hidden, batch["tokens"], temperature=temperature, with_entropy=True
        )
        loss, metrics = policy_loss(logprobs, batch, config)
        trained = batch["loss_weights"] > 0
        metrics["entropy"] = jax.lax.stop_gradient(jax.numpy.where(trained, entropy, 0.0).sum())
        return loss, metrics

    return loss_fn


def make_trainer_logprobs(model: LanguageModel, temperature: float) -> Any:
    """Returns the compiled function `(params, batch) -> log-probs` of the trainer's forward pass.

    The batch holds `tokens`, `positions`, `segment_ids` and, where prompts are shared,
    `prefix_ids`, each `[blocks, rows, length]`; the function goes through the blocks one by one.
    Log-probs are float32 of the same shape.
    """

    def logprobs(params, batch):
        def of_rows(rows):
            hidden = _hidden(model, params, rows)
            return token_logprobs(model, params, hidden, rows["tokens"], temperature=temperature)

        # Every process reads all log-probs, so every process gets them.
        return constrain(jax.lax.map(of_rows, batch), None, None, None)

    return jax.jit(logprobs)


def _hidden(model, params, batch):
    """Returns the hidden states of rows that `pack_rollouts` laid out."""
    names = ("tokens", "positions", "segment_ids")
    return model.hidden(params, *(batch[name] for name in names), batch.get("prefix_ids"))


class PolicySource(Source):
    """Samples rollouts with the current parameters and packs them into batches.

    Args:
      model: the model that is trained. Its `base` samples, with weights that are merged once for
        all rollouts of a step.
      reference_params: parameters of the reference policy, without those that it shares with the
        policy (`rl.reference.completed`); required if the variant has a KL term.
      renewal: schedule that replaces the reference by the trained policy; None means never.
      kept: where the finished samples go when a rollout is stopped, and come from when the run is
        resumed; None drops them. Samples of older weights (`staleness`) are always dropped.

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
        kept: KeptRollouts | None = None,
    ):
        if variant.loss.beta > 0 and reference_params is None:
            raise ValueError(
                f"the KL coefficient is {variant.loss.beta} but there is no reference policy: give "
                "reference_params or set beta=0"
            )
        if variant.loss.corrects and not config.recompute_old:
            raise ValueError(
                f"tis_cap={variant.loss.tis_cap}, mask_low={variant.loss.mask_low},"
                f" mask_high={variant.loss.mask_high} needs recompute_old=True: set it"
            )
        if config.staleness and not variant.loss.corrects:
            raise ValueError(
                f"staleness={config.staleness} needs an importance correction: set tis_cap,"
                " mask_low or mask_high"
            )
        self._ahead = Ahead(self._sample, config.overlap) if config.staleness else None
        self._saved: dict[str, Any] | None = None
        self._merge = model.merge
        self._rollouts, self._problems = rollout_sampler, problems
        self._variant, self._config, self._seed = variant, config, seed
        self._reference = reference_params
        self._renewal = renewal if reference_params is not None else None
        self._kept = kept if self._ahead is None else None
        # The first rollouts of a run may have been begun before, too.
        self._resumed, self._step = True, 0
        self._drawn: dict[int, Samples] = {}  # Of this step, by the number of the draw.
        self._batches_drawn = 0
        self._metrics: dict[str, float] = {}
        self._notes: list[str] = []
        self.last: Rollouts | None = None

        self._logprobs = make_trainer_logprobs(model, rollout_sampler.sampling.temperature)

    def next(self, state: Any) -> list[dict[str, np.ndarray]]:
        """Samples the next rollouts and returns the batches of their optimizer steps.

        Raises:
          SamplingStopped: the job is to stop. The state from before this call is still the one to
            save, together with the finished samples in `kept`.
        """
        if self._kept is not None:
            self._step = int(state.step)
        if self._renewal is not None:
            self._reference = self._renewal.renewed(self._reference, state.params, int(state.step))
        drawn = self._ahead.take() if self._ahead is not None else None
        stale = drawn is not None
        rollouts, self._metrics, self._notes = drawn or self._sample(self._merge(state.params))
        self.last = rollouts
        if self._resumed and self._kept is not None:
            self._kept.clear()
        self._resumed = False
        self._drawn.clear()
        clock = time.perf_counter()
        batches = self._batches(state.params, rollouts)
        self._metrics["seconds/prepare"] = time.perf_counter() - clock
        if self._ahead is not None:
            self._metrics["stale"] = float(stale)
            # A checkpoint has the counters from before the rollouts that are begun here.
            self._saved = self._counters()
            before, every = int(state.step), self._config.fresh_every
            if (before + len(batches)) // every == before // every:
                self._ahead.start(self._merge(state.params))
        return batches

    def close(self) -> None:
        """Ends what still samples in the background."""
        if self._ahead is not None:
            self._ahead.close()

    def _sample(self, params) -> tuple[Rollouts, dict[str, float], list[str]]:
        """Returns rollouts of one iteration, their metrics and notes."""
        spent: dict[str, Any] = {"sample": 0.0, "reward": 0.0, "tokens": 0, "notes": []}
        # Merged weights would take memory in training, so the generator drops them at the end.
        with self._rollouts.generator.holding(params):
            rollouts, metrics = self._informative_rollouts(spent)
        metrics |= {
            "seconds/sample": spent["sample"],
            "seconds/reward": spent["reward"],
            "seconds/layout": self._rollouts.generator.layout_seconds,
            "tokens_per_second/sample": spent["tokens"] / spent["sample"],
        }
        return rollouts, metrics, spent["notes"]

    def metrics(self) -> Mapping[str, float]:
        """Returns times, rewards and lengths of the latest rollouts, before dynamic sampling."""
        return self._metrics

    def notes(self) -> list[str]:
        """Returns warnings about the latest rewards, such as killed calls."""
        return self._notes

    def _draw(self, spent) -> Rollouts:
        problems = self._problems.take(self._config.prompts)
        draw = self._batches_drawn
        seed = derive_seed(self._seed, "rollouts", draw)
        self._batches_drawn += 1
        start = time.perf_counter()
        rollouts = self._generate(problems, seed, draw)
        sampled = time.perf_counter()
        rollouts = self._rollouts.score(rollouts)
        spent["notes"] += rollouts.notes
        taught = ~zero_advantage_groups(self._filter_scores(rollouts))
        self._problems.learned_from(rollouts.problems, taught)
        spent["sample"] += sampled - start
        spent["reward"] += time.perf_counter() - sampled
        spent["tokens"] += int(rollouts.lengths.sum())
        return rollouts

    def _generate(self, problems, seed, draw) -> Rollouts:
        """Samples a draw; keeps the finished samples of this step if the job is to stop."""
        if self._kept is None:
            return self._rollouts.generate(problems, seed)
        kept = self._kept.found(self._step, draw) if self._resumed else None
        try:
            rollouts = self._rollouts.generate(problems, seed, kept)
        except SamplingStopped as stopped:
            self._kept.store(self._step, self._drawn | {draw: stopped.samples})
            raise
        if self._variant.dynamic_sampling and self._rollouts.generator.last is not None:
            self._drawn[draw] = self._rollouts.generator.last  # More draws may follow.
        return rollouts

    def _informative_rollouts(self, spent):
        rollouts = self._draw(spent)
        # Metrics cover all sampled problems: a selection would misrepresent the policy.
        metrics = rollouts.metrics()
        metrics["zero_advantage_groups"] = float(zero_advantage_groups(rollouts.rewards).mean())
        if (accuracy := rollouts.by_reward.get("accuracy")) is not None:
            metrics["groups_all_right"] = float((accuracy.min(axis=1) >= 1).mean())
            metrics["groups_all_wrong"] = float((accuracy.max(axis=1) <= 0).mean())
        metrics |= self._problems.metrics()
        if not self._variant.dynamic_sampling:
            return rollouts, metrics
        wanted, draws = self._config.prompts, 1
        kept = rollouts.select(informative_groups(self._filter_scores(rollouts)))
        while len(kept.problems) < wanted and draws <= self._config.max_resamples:
            more = self._draw(spent)
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
        rewards = self._penalised(params, rollouts) if kl_in == "reward" else rollouts.rewards
        advantages = group_advantages(rewards, variant.advantage)
        lengths = rollouts.lengths
        budget = self._rollouts.max_new_tokens if variant.aggregation == "constant" else None
        weights = token_weights(lengths.ravel(), variant.aggregation, budget)
        weights = weights.reshape(lengths.shape)
        if kl_in != "loss":
            # A completion without advantage has no gradient unless the loss has a KL term.
            weights = np.where(advantages == 0, 0.0, weights)
        batch, _ = self._packed(rollouts, advantages, weights)
        if config.recompute_old:
            batch["old_logprobs"] = self._trainer_logprobs(params, batch)
        if kl_in == "loss":
            reference = completed(self._reference, params)
            batch["reference_logprobs"] = self._trainer_logprobs(reference, batch)
        return full_rows_first(batch, config.microbatches)

    def _packed(self, rollouts, advantages, weights):
        config = self._config
        return pack_rollouts(
            rollouts, advantages, weights, config.rows, config.row_length, config.share_prompts
        )

    def _penalised(self, params, rollouts: Rollouts) -> np.ndarray:
        """Returns rewards minus the KL to the reference policy, summed over each completion."""
        ones = np.ones_like(rollouts.rewards)
        batch, spans = self._packed(rollouts, ones, ones)
        logprobs = self._trainer_logprobs(completed(self._reference, params), batch)
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
        names = ("tokens", "positions", "segment_ids", "prefix_ids")
        inputs = {name: batch[name] for name in names if name in batch}
        rows = len(batch["tokens"])
        blocks = self._config.microbatches
        blocked = {name: x.reshape(blocks, rows // blocks, -1) for name, x in inputs.items()}
        return np.asarray(self._logprobs(params, blocked)).reshape(rows, -1)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that a checkpoint must hold to resume this source.

        Rollouts that were begun ahead are not part of it: a resumed source samples them again, with
        the weights that it then gets.
        """
        return self._counters() if self._saved is None else self._saved

    def _counters(self) -> dict[str, Any]:
        state = {
            "batches_drawn": self._batches_drawn,
            **self._problems.state_dict(),
        }
        return state | (self._renewal.state_dict() if self._renewal is not None else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._saved = None
        self._resumed = True
        self._batches_drawn = int(state["batches_drawn"])
        self._problems.load_state_dict(state)
        if self._renewal is not None:
            self._reference = self._renewal.restored(self._reference, state)
