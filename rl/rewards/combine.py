"""Combines several weighted rewards and evaluates them together.

Worker processes import this module, so it must not import JAX.
"""

import dataclasses
import functools
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models import processes
from reasoning.problem import Problem
from reasoning.response import without_opening
from reasoning.workers.pool import WorkerPool
from rl.rewards import RewardResult, Sample
from rl.rewards.format import FormatReward
from rl.rewards.language import LanguageReward
from rl.rewards.on_tasks import BatchOnTasks, OnTasks
from rl.rewards.repetition import RepetitionReward
from rl.rewards.self_check import SelfCheckReward
from rl.rewards.user import WORKER_MEMORY_MB, UserReward

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
    "code": "rl.rewards.code:CodeReward",
    "cosine": "rl.rewards.cosine:CosineReward",
    "harmless": "rl.rewards.preference:HarmlessReward",
    "helpful": "rl.rewards.preference:HelpfulReward",
    "judge_answer": "rl.rewards.judge:JudgeAnswerReward",
    "judge_format": "rl.rewards.judge:JudgeFormatReward",
    "overlong": "rl.rewards.overlong:OverlongReward",
}


# Largest magnitude of a reward; means and variances of larger ones are meaningless in float32.
LARGEST = 1e9


@dataclasses.dataclass(frozen=True)
class Scores:
    """The rewards of a batch of n completions.

    Attributes:
      total: float64 `[n]`, the weighted sum.
      by_reward: reward name -> float64 `[n]`, unweighted.
      reasons: reward name -> n reasons.
      notes: warnings for the user, a line each: calls that were killed and so count as 0.
    """

    total: np.ndarray
    by_reward: dict[str, np.ndarray]
    reasons: dict[str, list[str]]
    notes: list[str] = dataclasses.field(default_factory=list)


class RewardSet:
    """Evaluates weighted rewards on batches; a context manager, since it owns worker processes.

    Args:
      spec: the rewards with their weights and options, see `parse_rewards`.
      num_workers: number of worker processes.
      timeout_s: hard limit in seconds for one text reward or user's reward on one completion; a
        call that exceeds it is killed and scores 0.
      memory_mb: hard limit of a worker's address space in MiB; a call that exceeds it scores 0.

    Raises:
      ValueError: if `spec` is wrong; the message is one line and comes before any evaluation.
    """

    def __init__(
        self,
        spec: str | Mapping[str, Any],
        *,
        num_workers: int = 2,
        timeout_s: float = 5.0,
        memory_mb: int = WORKER_MEMORY_MB,
    ):
        self._rewards = parse_rewards(spec)
        self._pool = WorkerPool(
            _score_text,
            num_workers,
            timeout_s,
            memory_mb=memory_mb,
            on_timeout=_Killed(f"took longer than {timeout_s:g} s"),
            on_crash=_Killed(f"its process died, perhaps for more memory than {memory_mb} MiB"),
        )

    @property
    def weights(self) -> dict[str, float]:
        """Returns the weight of each reward by its name."""
        return {name: weight for name, (weight, _) in self._rewards.items()}

    def score(self, samples: Sequence[Sample]) -> Scores:
        """Rewards each completion.

        Raises:
          ValueError: if a reward raised an exception, returned no number of up to `LARGEST`, or was
            killed in every call. Such a faulty reward would spoil the training silently.
        """
        evaluated = self._evaluate(samples)
        notes = _told_of_killed(evaluated)
        results = {
            name: [RewardResult(0.0, r.reason) if isinstance(r, _Killed) else r for r in column]
            for name, column in evaluated.items()
        }
        by_reward = {
            name: np.array([result.score for result in column], np.float64)
            for name, column in results.items()
        }
        total = np.zeros(len(samples))
        for name, weight in self.weights.items():
            total += weight * by_reward[name]
        if not np.all(np.abs(total) <= LARGEST):
            raise ValueError(
                f"the weighted sum of rewards reaches {total[np.argmax(np.abs(total))]:g}, and may"
                f" reach ±{LARGEST:g}: give smaller weights"
            )
        reasons = {name: [result.reason for result in column] for name, column in results.items()}
        return Scores(total, by_reward, reasons, notes)

    def check(self, prompt: str, problem: Problem) -> None:
        """Tries every reward on an empty and on a perfect completion, before the long work starts.

        Of several processes, each tries the rewards that its workers compute, and only the main one
        tries those that ask a model or a server.

        Raises:
          ValueError: if a reward raises, returns no finite number, exceeds a limit, or differs
            between the processes of the job.
        """
        perfect = without_opening(prompt, f"<think> </think> <answer>{problem.answer}</answer>")
        samples = [Sample(prompt, text, problem, num_tokens=1) for text in ("", perfect)]
        results = self._evaluate(samples, everything=processes.is_main())
        computed = {
            name: [getattr(result, "score", None) for result in results[name]]
            for name, (_, reward) in self._rewards.items()
            if _is_text(reward)
        }
        processes.check_agreed("the rewards of a trial completion", computed)
        for name, column in results.items():
            for result in column:
                if isinstance(result, _Killed):
                    raise ValueError(
                        f"reward {name!r} on a trial completion: {result.reason}; make it faster"
                        " or smaller, or raise the limit"
                    )

    def close(self) -> None:
        """Ends the worker processes."""
        self._pool.close()

    def __enter__(self) -> "RewardSet":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _evaluate(self, samples, everything=True):
        """Returns, by reward name, a `RewardResult` or `_Killed` for each sample.

        Without `everything`, rewards that ask a model or a server are left out.
        """
        described = {
            name: json.dumps(_describe(reward))
            for name, (_, reward) in self._rewards.items()
            if _is_text(reward)
        }
        calls = [
            (description, sample.prompt, sample.completion, _fields(sample.problem))
            for description in described.values()
            for sample in samples
        ]
        flat = iter(self._pool.map(calls))
        columns = {name: [_result(next(flat)) for _ in samples] for name in described}
        results = {}
        for name, (_, reward) in self._rewards.items():
            if name not in columns and not everything:
                continue
            column = columns[name] if name in columns else reward.score_batch(samples)
            results[name] = column
            for sample, result in zip(samples, column, strict=True):
                fault = _fault(result)
                if fault:
                    raise ValueError(
                        f"reward {name!r} {fault}, on completion {sample.completion!r:.200}"
                    )
        return results


def score_divided(rewards: RewardSet, samples: Sequence[Sample]) -> Scores:
    """Rewards each completion once in a job of several processes; see `RewardSet.score`.

    Each process computes the rewards of its share of the completions. All get all of them, and
    first make sure that they hold the same completions.
    """
    if processes.count() == 1:
        return rewards.score(samples)
    processes.check_agreed("the sampled completions", [sample.completion for sample in samples])
    notes: list[str] = []

    def score(share: Sequence[Sample]) -> list[Any]:
        if not share:
            return []
        scores = rewards.score(share)
        notes.extend(scores.notes)
        names = list(scores.by_reward)
        return [
            [float(scores.total[i])]
            + [[float(scores.by_reward[n][i]), scores.reasons[n][i]] for n in names]
            for i in range(len(share))
        ]

    rows = processes.divided(samples, score)
    all_notes = processes.gathered(notes)
    columns = {name: [row[1 + i] for row in rows] for i, name in enumerate(rewards.weights)}
    return Scores(
        np.array([row[0] for row in rows]),
        {name: np.array([score for score, _ in column]) for name, column in columns.items()},
        {name: [reason for _, reason in column] for name, column in columns.items()},
        [note for each in all_notes for note in each],
    )


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
        name, reward = _build(key, options)
        if tasks is not None:
            if not isinstance(tasks, str) or not all(tasks.split("+")):
                raise ValueError(f"reward {key!r} has tasks={tasks!r}: give names joined by +")
            wrapper = OnTasks if _is_text(reward) else BatchOnTasks
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


def _build(key, options):
    """Returns the name and the reward for a key of the spec."""
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


def _is_text(reward):
    return not hasattr(reward, "score_batch")


@dataclasses.dataclass(frozen=True)
class _Killed:
    """Replaces the result of a call that exceeded a limit."""

    reason: str


@dataclasses.dataclass(frozen=True)
class _Raised:
    """Replaces the result of a call that raised."""

    error: str


def _describe(reward):
    """Describes a text reward as plain data, from which a worker rebuilds it."""
    if isinstance(reward, OnTasks):
        return {"tasks": reward.tasks, "reward": _describe(reward.reward)}
    if isinstance(reward, UserReward):
        return {"key": f"{reward.path}:{reward.function}", "options": {}}
    (key,) = [name for name, cls in TEXT_REWARDS.items() if type(reward) is cls]
    return {"key": key, "options": dataclasses.asdict(reward)}


@functools.lru_cache
def _reward_of(description: str):
    plain = json.loads(description)
    if "tasks" in plain:
        return OnTasks(_reward_of(json.dumps(plain["reward"])), tuple(plain["tasks"]))
    return _build(plain["key"], plain["options"])[1]


def _fields(problem):
    return [problem.task, problem.question, problem.answer, dict(problem.metadata)]


def _score_text(description, prompt, completion, problem):
    """Runs in the workers. Returns [score, reason], or the error as text."""
    try:
        result = _reward_of(description)(prompt, completion, Problem(*problem))
        return [float(result.score), str(result.reason)]
    except MemoryError:
        raise  # The pool handles it.
    except SystemExit as error:
        return f"sys.exit({error.code!r}){_place(description, error)}: return a number instead"
    except Exception as error:
        return f"{type(error).__name__}: {error}{_place(description, error)}"


def _result(reply):
    """Converts a worker's reply to a result."""
    if isinstance(reply, _Killed):
        return reply
    return _Raised(reply) if isinstance(reply, str) else RewardResult(*reply)


def _place(description, error):
    """Returns the place of an error in the user's file; empty for the project's own rewards."""
    reward = _reward_of(description)
    reward = getattr(reward, "reward", reward)  # Unwraps `OnTasks`.
    return reward.place(error) if isinstance(reward, UserReward) else ""


def _told_of_killed(evaluated):
    """Returns a line for each reward with killed calls.

    Raises:
      ValueError: if all calls of a reward were killed.
    """
    notes = []
    for name, column in evaluated.items():
        reasons = [result.reason for result in column if isinstance(result, _Killed)]
        if not reasons:
            continue
        if len(reasons) == len(column) > 1:
            raise ValueError(
                f"reward {name!r} gave no result in any of {len(column)} calls: {reasons[0]}; make"
                " it faster or smaller, or find out why its process ends"
            )
        notes.append(
            f"reward {name!r} gave no result in {len(reasons)} of {len(column)} calls, which count"
            f" as 0: {reasons[0]}"
        )
    return notes


def _fault(result):
    """Returns the fault of a result, or None."""
    if isinstance(result, _Raised):
        return f"failed with {result.error}"
    if isinstance(result, RewardResult) and not math.isfinite(result.score):
        return f"returned {result.score}, which is not a finite number"
    if isinstance(result, RewardResult) and abs(result.score) > LARGEST:
        return (
            f"returned {result.score:g}, beyond ±{LARGEST:g}, where means and variances of a batch"
            " lose their meaning: scale it down"
        )
    return None
