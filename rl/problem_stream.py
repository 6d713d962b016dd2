"""Decides which problems the policy is asked, and when again."""

import abc
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from models.seeds import derive_seed
from reasoning.problem import Problem


class ProblemStream:
    """Passes over the problems endlessly and reshuffles each pass; its state is one counter.

    Attributes:
      taken: how many problems have been passed.
    """

    def __init__(self, problems: Sequence[Problem], seed: int):
        if not problems:
            raise ValueError("there are no training problems: check the task and its split")
        self._problems, self._seed, self.taken = list(problems), seed, 0
        self._order = functools.lru_cache(maxsize=1)(self._order_of)

    def take(self, count: int) -> list[Problem]:
        """Returns the next `count` problems."""
        return [self._problems[self._next()] for _ in range(count)]

    def learned_from(self, problems: Iterable[Problem], informative: Iterable[bool]) -> None:
        """Takes note of which problems had a group with both right and wrong answers."""

    def metrics(self) -> dict[str, float]:
        """Returns what there is to log about the choice of problems."""
        return {}

    def _next(self) -> int:
        epoch, index = divmod(self.taken, len(self._problems))
        self.taken += 1
        return int(self._order(epoch)[index])

    def _order_of(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(derive_seed(self._seed, "epoch", epoch))
        return rng.permutation(len(self._problems))

    def state_dict(self) -> dict[str, Any]:
        """Returns the JSON-able state for a checkpoint."""
        return {"problems_taken": self.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.taken = int(state["problems_taken"])


class RestingStream(ProblemStream, abc.ABC):
    """Passes over the problems, but leaves some out where groups teach nothing.

    A group whose answers are all right or all wrong has no advantage: it costs sampling and teaches
    nothing. Subclasses compute the probability that a problem stays in a pass, from earlier groups.

    Args:
      problems: the training problems.
      seed: decides all draws.
      least: the smallest probability, above 0, so that every problem comes back now and then.
    """

    def __init__(self, problems: Sequence[Problem], seed: int, least: float = 0.125):
        if not 0 < least <= 1:
            raise ValueError(f"least={least}: give a probability above 0, at most 1")
        super().__init__(problems, seed)
        self._least = least

    def take(self, count: int) -> list[Problem]:
        """Returns the next `count` problems that are not left out."""
        taken = []
        while len(taken) < count:
            draw = np.random.default_rng(derive_seed(self._seed, "rest", self.taken)).random()
            index = self._next()
            if draw < max(self._chance(index), self._least):
                taken.append(self._problems[index])
        return taken

    @abc.abstractmethod
    def _chance(self, index: int) -> float:
        """Returns the probability that a problem stays in a pass."""


class ProblemAdaptiveStream(RestingStream):
    """Rests problems whose answers were all right or all wrong.

    A problem whose last n groups were like this stays in a pass with probability 2^-n. A group with
    both right and wrong answers brings it back for good. This helps where problems come again.
    """

    def __init__(self, problems: Sequence[Problem], seed: int, least: float = 0.125):
        super().__init__(problems, seed, least)
        self._places = {id(problem): i for i, problem in enumerate(self._problems)}
        # Problem -> its groups without signal in a row; those without an entry have none.
        self._streaks: dict[int, int] = {}

    def _chance(self, index: int) -> float:
        return 0.5 ** self._streaks.get(index, 0)

    def learned_from(self, problems: Iterable[Problem], informative: Iterable[bool]) -> None:
        """Takes note of which problems had a group with both right and wrong answers."""
        for problem, taught in zip(problems, informative, strict=True):
            index = self._places[id(problem)]
            if taught:
                self._streaks.pop(index, None)
            else:
                self._streaks[index] = self._streaks.get(index, 0) + 1

    def metrics(self) -> dict[str, float]:
        """Returns the share of problems that are at rest."""
        return {"problems_at_rest": len(self._streaks) / len(self._problems)}

    def state_dict(self) -> dict[str, Any]:
        """Returns the JSON-able state for a checkpoint."""
        return super().state_dict() | {"streaks": sorted(map(list, self._streaks.items()))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        super().load_state_dict(state)
        self._streaks = {int(index): int(streak) for index, streak in state["streaks"]}


class TaskAdaptiveStream(RestingStream):
    """Asks more of the tasks whose groups teach most; it helps where no problem comes twice, too.

    Of each task the stream keeps a moving average: the share of groups with both right and wrong
    answers. A problem stays in a pass with the share of its task over the largest share. So a task
    that the policy has learned gives way to those that it is learning.

    Args:
      rate: the weight of the latest group in the average.
    """

    def __init__(
        self, problems: Sequence[Problem], seed: int, least: float = 0.125, rate: float = 0.1
    ):
        super().__init__(problems, seed, least)
        self._rate = rate
        self._shares = {problem.task: 1.0 for problem in self._problems}

    def _chance(self, index: int) -> float:
        largest = max(self._shares.values())
        return self._shares[self._problems[index].task] / largest if largest else 1.0

    def learned_from(self, problems: Iterable[Problem], informative: Iterable[bool]) -> None:
        """Takes note of which problems had a group with both right and wrong answers."""
        for problem, taught in zip(problems, informative, strict=True):
            self._shares[problem.task] += self._rate * (taught - self._shares[problem.task])

    def metrics(self) -> dict[str, float]:
        """Returns the average share of groups that teach, by task."""
        return {f"teaching/{task}": share for task, share in self._shares.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns the JSON-able state for a checkpoint."""
        return super().state_dict() | {"shares": dict(self._shares)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        super().load_state_dict(state)
        self._shares = {task: float(share) for task, share in state["shares"].items()}


# How a stream chooses problems, by the name of the setting `adaptive_sampling`.
STREAMS: Mapping[str, type[ProblemStream]] = {
    "off": ProblemStream,
    "problem": ProblemAdaptiveStream,
    "task": TaskAdaptiveStream,
}
