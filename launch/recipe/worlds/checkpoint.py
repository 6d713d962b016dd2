"""A checkpoint as the world: its own weights, tokenizer and chat form, and tasks in free text.

Such a model answers in free text. A right response becomes the chain of thought of training data
in the R1 format, and the answer found in it becomes the answer.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from launch.jobs.finetune import export_dtype, open_checkpoint
from launch.parts import runtime
from launch.parts.stages import Workspace
from launch.recipe.world import World
from launch.schema.sections import check_rows
from launch.schema.small import SmallConfig
from models.checkpoint import load_params
from models.checkpoint_source import locate
from models.sharding import batch_shards, length_shards
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.response import parse_response, tagged
from reasoning.tasks import Task, get_task

_task = functools.cache(get_task)


class CheckpointWorld(World):
    """See the module."""

    def open_workspaces(
        self, config: SmallConfig, directory: Path, num_seeds: int, accept_stopped: Sequence[str]
    ) -> list[Workspace]:
        """Opens everything of the checkpoint but its weights; see `World`."""
        source = locate(config.model)
        runtime.keep_compiled(directory)
        model, tokenizer = open_checkpoint(source, config.dtype, config.remat)
        mesh = runtime.build_mesh(config)
        check_rows(config, batch_shards(mesh), length_shards(mesh))
        context = model.config.max_length
        for name, longest in config.lengths().items():
            if context is not None and longest >= context:
                raise ValueError(
                    f"config.{name}.max_new_tokens={longest} leaves no room in the model's context"
                    f" of {context} tokens: lower it"
                )
        return [
            Workspace(
                directory / f"seed_{seed}", config, seed, mesh, model, tokenizer,
                tuple(accept_stopped), export_dtype(source, config.export_dtype),
            )
            for seed in range(config.seed, config.seed + num_seeds)
        ]  # fmt: skip

    def make_base(self, work: Workspace, directory: Path) -> Any:
        """Loads the checkpoint's weights."""
        return load_params(locate(work.config.model), work.model.config, work.mesh)

    def student_settings(self, work: Workspace) -> dict[str, Any]:
        """Returns the config's sizes with the checkpoint's vocabulary, which both share."""
        vocabulary = {"vocab_size": work.model.config.vocab_size}
        return super().student_settings(work) | vocabulary

    def make_student(self, work: Workspace, directory: Path) -> Any:
        """Returns random weights; distillation is all that the student learns."""
        with jax.set_mesh(work.mesh):
            return jax.jit(work.model.init)(jax.random.key(work.seed))

    def short_enough(self, work: Workspace, problems: list[Problem]) -> list[Problem]:
        """Leaves out problems by `config.max_prompt_tokens`; `ValueError` if none is left."""
        most = work.config.max_prompt_tokens
        if most is None:
            return problems
        template = get_template(work.config.template, work.tokenizer)
        prompts = work.tokenizer.encode_prompts([template(each.question) for each in problems])
        kept = [each for each, ids in zip(problems, prompts, strict=True) if len(ids) <= most]
        if not kept:
            raise ValueError(
                f"config.max_prompt_tokens={most} leaves out all {len(problems)} problems: set it"
                f" to at least {min(map(len, prompts))}, the length of the shortest prompt"
            )
        return kept

    def formatted(self, problem: Problem, text: str, bare: bool) -> tuple[str, str]:
        """Makes free text the chain, and the answer found in it the answer.

        A text that already has the format keeps it. A text that has some of its tags is broken.
        """
        parsed = parse_response(text)
        if parsed.well_formed and parsed.answer is not None and parsed.chain is not None:
            return tagged(_lines(parsed.chain), parsed.answer), parsed.answer
        lines = _lines(text)
        if not lines or "<" in text:
            return text, ""
        if bare:
            whole = " ".join(lines)
            return tagged([], whole), whole
        task: Task = _task(problem.task)
        answer = task.extract(text)
        return (tagged(lines, answer), answer) if answer else (text, "")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


WORLD = CheckpointWorld()
