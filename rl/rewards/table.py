"""The table of rewards, and the reading of a config's rewards with weights and options.

Worker processes import this module, so it must not import JAX.
"""

import dataclasses
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning.problem import Problem
from rl.rewards import RewardResult, Sample
from rl.rewards.format import FormatReward
from rl.rewards.language import LanguageReward
from rl.rewards.repetition import RepetitionReward
from rl.rewards.self_check import SelfCheckReward
from rl.rewards.user import UserReward

# Rewards of one completion's text. Worker processes import and call them under the time limit. Each
# instance of a class is a reward; its dataclass fields are the options.
TEXT_REWARDS = {
    "format": FormatReward,
    "language": LanguageReward,
    "repetition": RepetitionReward,
    "self_check": SelfCheckReward,
}

# Rewards of whole batches, `score_batch(samples) -> results`. This process calls them, because they
# need token counts or a model, or have their own workers. The values are names, not classes, so
# that the workers need not import these modules.
BATCH_REWARDS = {
    "accuracy": "rl.rewards.accuracy:AccuracyReward",
    "budget": "rl.rewards.overlong:BudgetReward",
    "code": "rl.rewards.code:CodeReward",
    "cosine": "rl.rewards.cosine:CosineReward",
    "harmless": "rl.rewards.preference:HarmlessReward",
    "helpful": "rl.rewards.preference:HelpfulReward",
    "judge_answer": "rl.rewards.judge:JudgeAnswerReward",
    "judge_format": "rl.rewards.judge:JudgeFormatReward",
    "overlong": "rl.rewards.overlong:OverlongReward",
}


def parse_rewards(spec: str | Mapping[str, Any]) -> dict[str, tuple[float, Any]]:
    """Builds rewards from a config.

    A spec maps each reward to its weight, or to a mapping of its options, which may include
    `weight` (default 1). On the command line, a spec is the same as text:

        {"accuracy": {"weight": 1.0, "require_format": True}, "format": 0.2}
        "accuracy?require_format=true,format=0.2,path/to/my_rewards.py:fn?weight=0.5"

    A reward is a name from `TEXT_REWARDS` or `BATCH_REWARDS`, or a function in a file. Give
    weight 0 to rewards that are only measured. The option `tasks=NAME+NAME` limits a reward to
    the problems of some tasks.

    Returns:
      Reward name (for a user's reward, the name of its function) -> (weight, reward).

    Raises:
      ValueError: if a reward or option is unknown, a value is bad or a file is faulty; one line.
    """
    items = _split_text(spec) if isinstance(spec, str) else list(spec.items())
    rewards = {}
    for key, options in items:
        options = dict(options.items()) if hasattr(options, "items") else {"weight": options}
        weight = options.pop("weight", 1.0)
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not math.isfinite(weight)
        ):
            raise ValueError(f"reward {key!r} has weight {weight!r}: give a finite number")
        tasks = options.pop("tasks", None)
        name, reward = build(key, options)
        if tasks is not None:
            if not isinstance(tasks, str) or not all(tasks.split("+")):
                raise ValueError(f"reward {key!r} has tasks={tasks!r}: give names joined by +")
            wrapper = OnTasks if is_text(reward) else BatchOnTasks
            reward = wrapper(reward, tuple(tasks.split("+")))
        if name in rewards:
            raise ValueError(f"two rewards are called {name!r}: rename one, or give it once")
        rewards[name] = (float(weight), reward)
    if not rewards:
        raise ValueError("no rewards are given: name at least one, for instance accuracy=1")
    return rewards


def user_rewards(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a spec that names a user's own functions; see `parse_rewards`."""
    items = _split_text(spec) if isinstance(spec, str) else list(spec.items())
    return {key: options for key, options in items if ":" in key}


def _split_text(spec):
    """`a=0.5,b?x=1&weight=2` -> [("a", {"weight": 0.5}), ("b", {"x": 1, "weight": 2})]."""
    items = []
    for item in filter(None, (part.strip() for part in spec.split(","))):
        key, has_options, options = item.partition("?")
        if not has_options:
            key, has_weight, weight = item.rpartition("=")
            if ":" in weight:  # The `=` of `some=folder/rewards.py:fn` belongs to the path.
                key, has_weight = item, ""
            options = f"weight={weight}" if has_weight else ""
            key = key if has_weight else item
        pairs = [pair.partition("=") for pair in options.split("&") if pair]
        items.append((key, {name: _literal(value) for name, _, value in pairs}))
    return items


def _literal(text):
    """Parses a number or true/false; returns any other text unchanged."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def build(key: str, options: Mapping[str, Any]) -> tuple[str, Any]:
    """Returns the name and the reward for a key of a spec; `options` has no `weight` or `tasks`."""
    if ":" in key:
        path, _, function = key.rpartition(":")
        if options:
            raise ValueError(f"reward {key!r} has no option {next(iter(options))!r}: only weight")
        return function, UserReward(path, function)
    if key in TEXT_REWARDS:
        cls = TEXT_REWARDS[key]
    elif key in BATCH_REWARDS:
        module, _, name = BATCH_REWARDS[key].partition(":")
        cls = getattr(importlib.import_module(module), name)
    else:
        known = ", ".join(sorted([*TEXT_REWARDS, *BATCH_REWARDS]))
        raise ValueError(
            f"unknown reward {key!r}: choose among {known}, or give path/to/file.py:function"
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in options.items():
        if name not in fields:
            known = ", ".join(["weight", *fields])
            raise ValueError(f"reward {key!r} has no option {name!r}: its options are {known}")
        kind = fields[name].type
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise ValueError(
                f"option {name} of reward {key!r} is {value!r}: it must be of type {kind.__name__}"
            )
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in options:
            raise ValueError(f"reward {key!r} needs the option {name}")
    return key, cls(**options)


def is_text(reward: Any) -> bool:
    """Returns whether a reward reads one completion's text, in a worker process."""
    return not hasattr(reward, "score_batch")


@dataclasses.dataclass(frozen=True)
class OnTasks:
    """Applies a text reward to the problems of some tasks; other problems earn 0.

    Attributes:
      reward: the text reward.
      tasks: names of tasks, without their parameters.
    """

    reward: Any
    tasks: tuple[str, ...]

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        if not _applies(problem, self.tasks):
            return _not_asked(problem)
        return self.reward(prompt, completion, problem)


@dataclasses.dataclass(frozen=True)
class BatchOnTasks:
    """Applies a batch reward to the problems of some tasks; it never sees other samples."""

    reward: Any
    tasks: tuple[str, ...]

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        chosen = [sample for sample in samples if _applies(sample.problem, self.tasks)]
        scored = iter(self.reward.score_batch(chosen) if chosen else ())
        return [
            next(scored) if _applies(sample.problem, self.tasks) else _not_asked(sample.problem)
            for sample in samples
        ]


def _applies(problem: Problem, tasks: tuple[str, ...]) -> bool:
    return problem.task.partition("?")[0].partition(":")[0] in tasks


def _not_asked(problem: Problem) -> RewardResult:
    return RewardResult(0.0, f"not a reward of {problem.task}")
