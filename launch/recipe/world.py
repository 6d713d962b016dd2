"""The world that the recipe's stages run in: where the base model is from, and what its tasks hold.

The schema of a config names its world (`launch.schema.recipe.RecipeConfig.world`). Stages ask the
world for everything that differs between a model from scratch in the tiny world and a checkpoint.
"""

import abc
import importlib
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.parts.stages import Workspace, evaluation_problems
from launch.schema.recipe import RecipeConfig
from reasoning.problem import Problem
from reasoning.tasks import get_task
from reasoning.training_data.curation import VerifiedSample


class World(abc.ABC):
    """What the stages need to know of a world.

    Attributes:
      min_lines: lines that a chain must have to be trained on.
      plain: the template of `search` that asks without a chain of thought; None is the config's.
      more_prompts: whether `search` also compares the prompts of base models.
    """

    min_lines = 1
    plain: str | None = None
    more_prompts = False

    @abc.abstractmethod
    def open_workspaces(
        self,
        config: Any,
        directory: Path,
        num_seeds: int,
        accept_stopped: Sequence[str],
    ) -> list[Workspace]:
        """Returns the workspaces of runs with seeds `config.seed`, `config.seed` + 1, ...

        All runs share one model, mesh and tokenizer.
        """

    @abc.abstractmethod
    def make_base(self, work: Workspace, directory: Path) -> Any:
        """Returns the base model's parameters; a training writes into the stage's directory."""

    def student_settings(self, work: Workspace) -> dict[str, Any]:
        """Returns the sizes of the student, as `models.config.ModelConfig` takes them."""
        return work.config.distill.base.model.settings()

    @abc.abstractmethod
    def make_student(self, work: Workspace, directory: Path) -> Any:
        """Returns the parameters that a student starts with; `work` is the student's."""

    def seen(self, work: Workspace) -> set[str]:
        """Returns the questions that the base model is known to be trained on."""
        return set()

    def examples(self, rng: random.Random, like: Problem, count: int) -> list[tuple[str, str]]:
        """Returns new pairs of a question and a response, of the same kind as a problem.

        Raises:
          ValueError: the world has none.
        """
        raise ValueError(f"{like.task} has no worked examples to put into a prompt: set shots to 0")

    def short_enough(self, work: Workspace, problems: list[Problem]) -> list[Problem]:
        """Returns the training problems whose prompts are as short as the config demands."""
        return problems

    def solved(self, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        """Returns the problems that have a worked solution, each with its response."""
        return []

    @abc.abstractmethod
    def formatted(self, problem: Problem, text: str, bare: bool) -> tuple[str, str]:
        """Returns a sampled response in the R1 format, and its answer.

        Args:
          problem: the problem.
          text: the whole response.
          bare: whether a text without tags is an answer without a chain.

        Returns:
          The text itself and an empty answer, if it cannot be brought into the format.
        """

    def judged(self, sample: VerifiedSample) -> VerifiedSample:
        """Returns a sample of the general data, judged by more than its answer."""
        return sample


def world_of(config: RecipeConfig) -> World:
    """Returns the world of a config."""
    return importlib.import_module(config.world).WORLD


def open_workspaces(
    config: RecipeConfig, directory: Path, num_seeds: int, accept_stopped: Sequence[str] = ()
) -> list[Workspace]:
    """Opens the world of a config; see `World.open_workspaces`."""
    return world_of(config).open_workspaces(config, directory, num_seeds, tuple(accept_stopped))


def training_problems(work: Workspace, counts: Mapping[str, int]) -> list[Problem]:
    """Returns training problems of each task; raises an error if the evaluation asks one.

    Args:
      work: the run.
      counts: task -> number of problems; -1 is all.
    """
    problems = [
        problem
        for task, count in counts.items()
        for problem in get_task(task).problems("train", None if count == -1 else count, work.seed)
    ]
    assert_held_out(work, {problem.question for problem in problems})
    return world_of(work.config).short_enough(work, problems)


def assert_held_out(work: Workspace, questions: Iterable[str]) -> None:
    """Raises `AssertionError` if a problem of the evaluation is among training questions."""
    for _, problems in evaluation_problems(work.config.evaluation, work.seed).values():
        for problem in problems:
            if problem.question in questions:
                raise AssertionError(f"test problem {problem.question!r} occurs in training")
