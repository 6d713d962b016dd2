"""Rewards, one file each, and `combine.RewardSet`, which evaluates and weights them.

A reward is `fn(prompt: str, completion: str, problem: Problem) -> RewardResult`. To add one, write
it in a file of its own and name it in one of the two tables of `rl.rewards.table`.
"""

import dataclasses

from reasoning.problem import Problem


@dataclasses.dataclass(frozen=True)
class RewardResult:
    """The score of a completion.

    Attributes:
      score: a finite number.
      reason: explanation of the score in words.
    """

    score: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """A completion to be rewarded.

    Attributes:
      prompt: the text that the completion continues, after the prompt template.
      completion: the sampled text, without special tokens.
      problem: the problem that the prompt asks.
      num_tokens: length of the completion in tokens, including the end-of-sequence token.
    """

    prompt: str
    completion: str
    problem: Problem
    num_tokens: int
