"""Rewards: one file each, and `combine.RewardSet`, which weighs and evaluates them.

A reward is `fn(prompt: str, completion: str, problem: Problem) -> RewardResult`. To add one, write
it in a file of its own and name it in one of the two tables of `rl.rewards.combine`.
"""

import dataclasses

from reasoning.problem import Problem


@dataclasses.dataclass(frozen=True)
class RewardResult:
    """What a completion earns.

    Attributes:
      score: finite.
      reason: why, in words.
    """

    score: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """A completion to be rewarded.

    Attributes:
      prompt: the text the completion continues, after the prompt template.
      completion: the sampled text, without special tokens.
      problem: what was asked.
      num_tokens: length of the completion in tokens, the end-of-sequence token included.
    """

    prompt: str
    completion: str
    problem: Problem
    num_tokens: int
