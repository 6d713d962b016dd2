"""Checks a distillation before anything is sampled or trained."""

from collections.abc import Callable, Sequence
from typing import Any

from launch.parts import stages
from launch.parts.stages import Workspace
from launch.schema.distill import Distilling
from reasoning.problem import Problem
from reasoning.prompts import get_template


def named(section: str, check: Callable[..., Any], *arguments: Any) -> None:
    """Calls a check and puts the name of the config's section before its error."""
    try:
        check(*arguments)
    except ValueError as error:
        raise ValueError(f"config.{section}: {error}") from None


def check_lengths(
    work: Workspace, teacher: Workspace | None, problems: Sequence[Problem], config: Distilling
) -> None:
    """Raises `ValueError` if a prompt leaves no room for its response."""
    prompts = _prompts(work, problems)
    if "on_policy" in config.trained:
        section = config.on_policy
        named(
            "on_policy", stages.check_prompts, work, prompts, section.max_new_tokens,
            section.row_length,
        )  # fmt: skip
    if teacher is not None and not config.data.responses:
        asked = _prompts(teacher, problems)
        named("data", stages.check_prompts, teacher, asked, config.data.max_new_tokens)
    for place in (work, teacher) if teacher is not None else (work,):
        held_out = stages.evaluation_problems(work.config.evaluation, work.seed)
        for _, of_domain in held_out.values():
            prompts = _prompts(place, of_domain)
            named(
                "evaluation", stages.check_prompts, place, prompts,
                work.config.evaluation.max_new_tokens,
            )  # fmt: skip


def _prompts(work: Workspace, problems: Sequence[Problem]) -> list[str]:
    template = get_template(work.config.template, work.tokenizer)
    return [template(problem.question) for problem in problems]


def check_vocabulary(method: str, student: Workspace, teacher: Workspace) -> None:
    """Raises `ValueError` unless every id means the same token to student and teacher."""
    for i in range(max(student.tokenizer.vocab_size, teacher.tokenizer.vocab_size)):
        ours, theirs = (each.tokenizer.token_bytes(i) for each in (student, teacher))
        if ours != theirs:
            raise ValueError(
                f"method {method!r} compares distributions over tokens, but token {i} is {ours!r}"
                f" to the student and {theirs!r} to the teacher: choose models of one vocabulary,"
                " or method 'sequence'"
            )
