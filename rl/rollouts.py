"""Samples completions of the current policy and rewards them."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from models.decoding.samples import Samples
from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import Completion
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from reasoning.server_client.rollout_server import RolloutServer
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
        generator: JaxGenerator | RolloutServer,
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
