"""Evaluates several weighted rewards together, in worker processes where they read text alone.

Worker processes import this module, so it must not import JAX.
"""

import dataclasses
import functools
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
from rl.rewards.table import TEXT_REWARDS, OnTasks, build, is_text, parse_rewards
from rl.rewards.user import WORKER_MEMORY_MB, UserReward

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
        notes = _notes_on_killed(evaluated)
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
            if is_text(reward)
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
            if is_text(reward)
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
    return build(plain["key"], plain["options"])[1]


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


def _notes_on_killed(evaluated):
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
