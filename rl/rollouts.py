"""Samples completions of the current policy, rewards them and packs them into batches."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from models.decoding.samples import Samples
from models.decoding.sampling import SamplingParams
from models.tokens.packing import pack, place
from reasoning.generation.generator import Completion
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from rl.rewards import Sample
from rl.rewards.combine import RewardSet, score_divided


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """G completions for each of P problems.

    Attributes:
      problems: P problems.
      prompts: P prompt texts.
      prompt_ids: P lists of token ids.
      completions: P x G completions.
      rewards: `[P, G]`, weighted sum of all rewards.
      by_reward: reward name -> `[P, G]`, unweighted.
      reasons: reward name -> P x G reasons in words.
      notes: warnings about the rewards for the user, a line each.
    """

    problems: list[Problem]
    prompts: list[str]
    prompt_ids: list[list[int]]
    completions: list[list[Completion]]
    rewards: np.ndarray
    by_reward: dict[str, np.ndarray]
    reasons: dict[str, list[list[str]]]
    notes: tuple[str, ...] = ()

    @property
    def lengths(self) -> np.ndarray:
        """Returns the number of tokens of each completion, `[P, G]`."""
        return np.array([[len(c.token_ids) for c in group] for group in self.completions])

    def select(self, keep: Sequence[int] | np.ndarray) -> "Rollouts":
        """Returns the rollouts of the problems with the indices `keep`, in this order."""

        def pick(value):
            if isinstance(value, np.ndarray):
                return value[list(keep)]
            if isinstance(value, dict):
                return {name: pick(column) for name, column in value.items()}
            if isinstance(value, tuple):
                return value
            return [value[i] for i in keep]

        return Rollouts(**{f.name: pick(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def join(self, other: "Rollouts") -> "Rollouts":
        """Returns these rollouts followed by `other`."""

        def both(a, b):
            if isinstance(a, np.ndarray):
                return np.concatenate([a, b])
            if isinstance(a, dict):
                return {name: both(a[name], b[name]) for name in a}
            return a + b

        names = [f.name for f in dataclasses.fields(self)]
        return Rollouts(**{name: both(getattr(self, name), getattr(other, name)) for name in names})

    def metrics(self) -> dict[str, float]:
        """Returns mean rewards, lengths in tokens, and the share of truncated completions."""
        metrics = {"reward": float(self.rewards.mean()), "reward_std": float(self.rewards.std())}
        metrics |= {name: float(column.mean()) for name, column in self.by_reward.items()}
        lengths = self.lengths
        metrics |= {
            "response_tokens": float(lengths.mean()),
            "response_tokens_max": float(lengths.max()),
            "truncated": float(
                np.mean([c.finish == "length" for group in self.completions for c in group])
            ),
        }
        return metrics


class RolloutSampler:
    """Samples completions for problems and rewards them.

    Attributes:
      generator: samples completions; the caller replaces its `params` after every update.
      template: maps a question to the text of its prompt.
      rewards: scores the completions; None if the caller does not score them.
      group: G, number of completions for each problem.
      max_new_tokens: largest length of a completion.
      sampling: temperature and filters of the sampler.
    """

    def __init__(
        self,
        generator: JaxGenerator,
        template: Callable[[str], str],
        rewards: RewardSet | None,
        *,
        group: int,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
    ):
        if sampling.temperature == 0:
            raise ValueError(
                "temperature=0 gives equal samples, but RL needs different ones: set it above 0"
            )
        self.generator, self.template, self.rewards = generator, template, rewards
        self.group, self.max_new_tokens, self.sampling = group, max_new_tokens, sampling

    def generate(
        self, problems: Sequence[Problem], seed: int, kept: Samples | None = None
    ) -> Rollouts:
        """Samples G completions of each problem, without rewards yet; see `score`.

        Args:
          problems: the problems.
          seed: seed of the draws.
          kept: finished samples of the same call that was stopped; they are not drawn again.

        Raises:
          SamplingStopped: the job is to stop; the exception has the finished samples.
        """
        prompts = [self.template(problem.question) for problem in problems]
        prompt_ids = self.generator.tokenizer.encode_prompts(prompts)
        completions = self.generator.generate_from_ids(
            prompt_ids,
            num_samples=self.group,
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            seed=seed,
            kept=kept,
        )
        return Rollouts(
            problems=list(problems),
            prompts=prompts,
            prompt_ids=prompt_ids,
            completions=completions,
            rewards=np.zeros((len(prompts), self.group)),
            by_reward={},
            reasons={},
        )

    def score(self, rollouts: Rollouts) -> Rollouts:
        """Returns the same rollouts with their rewards."""
        if self.rewards is None:
            raise ValueError("this sampler was made without rewards: give it some")
        scores = score_divided(
            self.rewards,
            [
                Sample(prompt, completion.text, problem, len(completion.token_ids))
                for problem, prompt, group in zip(
                    rollouts.problems, rollouts.prompts, rollouts.completions
                )
                for completion in group
            ],
        )
        shape = rollouts.rewards.shape
        starts = range(0, shape[0] * shape[1], shape[1])
        return dataclasses.replace(
            rollouts,
            rewards=scores.total.reshape(shape),
            by_reward={name: column.reshape(shape) for name, column in scores.by_reward.items()},
            reasons={
                name: [column[start : start + shape[1]] for start in starts]
                for name, column in scores.reasons.items()
            },
            notes=tuple(scores.notes),
        )


def full_rows_first(batch: dict[str, np.ndarray], microbatches: int) -> dict[str, np.ndarray]:
    """Reorders rows so that the empty ones form whole microbatches, which the train step skips.

    Microbatch i of the train step takes rows i, i + microbatches, ...; packing leaves the last rows
    empty.
    """
    rows = len(batch["tokens"])
    order = np.arange(rows).reshape(microbatches, -1).T.ravel()
    return {name: x[order] for name, x in batch.items()}


def pack_rollouts(
    rollouts: Rollouts, advantages: np.ndarray, weights: np.ndarray, rows: int, row_length: int
) -> tuple[dict[str, np.ndarray], list[tuple[int, slice]]]:
    """Packs prompts with their completions into a batch of fixed shape.

    Args:
      rollouts: the rollouts to pack.
      advantages: `[P, G]`.
      weights: `[P, G]`, loss weight of each token of a completion. Completions of weight 0 are left
        out.
      rows, row_length: shape of the batch; unused rows at the end stay empty.

    Returns:
      The batch: `tokens, positions, segment_ids, loss_weights, advantages, behaviour_logprobs`,
      each `[rows, row_length]`; and the place (row, columns) of each packed completion, in the
      order of the rollouts.

    Raises:
      ValueError: if a sequence is longer than a row or the rows cannot hold all sequences.
    """
    kept = [(int(i), int(g)) for i, g in zip(*np.nonzero(weights > 0))]
    if not kept:
        integers = ("tokens", "positions", "segment_ids")
        floats = ("loss_weights", "advantages", "behaviour_logprobs")
        empty = {name: np.zeros((rows, row_length), np.int32) for name in integers}
        return empty | {name: np.zeros((rows, row_length), np.float32) for name in floats}, []

    def example(i, g):
        prompt, completion = rollouts.prompt_ids[i], rollouts.completions[i][g]
        if completion.logprobs is None or min(completion.token_ids, default=0) < 0:
            raise ValueError(
                "a completion has no log-probabilities or token ids, which RL needs: sample it with"
                " a generator that reports them, such as JaxGenerator"
            )
        generated = len(completion.token_ids)

        def of_completion(value):
            values = np.full(generated, value) if np.isscalar(value) else value
            return np.concatenate([np.zeros(len(prompt), np.float32), values])

        return {
            "tokens": np.array(prompt + completion.token_ids),
            "loss_weights": of_completion(weights[i, g]),
            "advantages": of_completion(advantages[i, g]),
            "behaviour_logprobs": of_completion(completion.logprobs),
        }

    examples = [example(i, g) for i, g in kept]
    placement = place([len(each["tokens"]) for each in examples], row_length)
    ends = placement.offset + placement.length
    spans = [
        (int(row), slice(int(end) - len(rollouts.completions[i][g].token_ids), int(end)))
        for (i, g), row, end in zip(kept, placement.row, ends)
    ]
    return pack(examples, placement, row_length, rows), spans
