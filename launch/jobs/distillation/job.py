"""Distils a teacher's reasoning into a smaller student, as a config says.

`distill` samples the teacher's responses, trains each arm from the same student, and reports their
accuracy beside the FLOPs that each arm spent; `launch.jobs.distillation.arms` holds the arms.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.jobs import adapters, responses
from launch.jobs.distillation.arms import Distillation, Teacher
from launch.jobs.distillation.checks import check_lengths, check_vocabulary, named
from launch.jobs.training import reinforcement
from launch.parts import report, stages
from launch.parts.stages import Workspace
from launch.schema import as_dict
from launch.schema.distill import METHODS, Distilling, OnResponses
from reasoning.problem import Problem
from train.objectives import distillation, sft
from train.optimizer import make_optimizer
from train.step import make_train_step

# The stages of a distillation that train.
TRAINED = ("base", "rl_only", *METHODS, "distill_then_rl")

# More steps than any schedule needs: checks an optimizer before the number of steps is known.
UNKNOWN_STEPS = 10**9


def prepare(
    work: Workspace, teacher: Teacher | None, problems: Sequence[Problem], config: Distilling
) -> Distillation:
    """Checks the arguments of `distill` before any long work.

    Raises:
      ValueError: in one line: a method needs one vocabulary and the models have two, a prompt
        leaves no room for its response, rows do not divide, or the responses are not valid data.
    """
    needed = set(config.trained)
    for method in sorted(needed & {"logit", "on_policy"}):
        if teacher is not None:
            check_vocabulary(method, work, teacher.work)
    if config.lora.rank:
        config = _adapted(config)
        work = adapters.adapted(work, config.lora)
    data = config.data.responses or str(work.stage_directory("teacher") / responses.DATA_FILE)
    trainer = Distillation(work, teacher, problems, config, data)
    check_lengths(work, teacher and teacher.work, problems, config)
    if "rl_only" in needed:
        reinforcement.plan_reinforce(work, list(problems), config.rl_only)
    for method in sorted(needed & set(METHODS)):
        section = getattr(config, method)
        # The number of steps is not known until there are responses.
        optimizer = make_optimizer(
            section.optimizer.settings(), work.model.abstract_params, UNKNOWN_STEPS
        )
        step = make_train_step(
            sft.make_loss(work.model), optimizer, work.mesh, accumulate=section.microbatches
        )
        named(method, step.check_rows, section.rows, section.row_length)
        if method != "on_policy" and config.data.responses:
            named(method, _plan, trainer, section)
    top_k = config.logit.top_k
    if "logit" in needed and top_k is not None and teacher is not None:
        vocab = distillation.shared_vocab(work.model, teacher.work.model)
        if top_k > vocab:
            raise ValueError(
                f"config.logit.top_k={top_k} exceeds the {vocab} tokens of the vocabulary: lower it"
            )
    return trainer


def _plan(trainer: Distillation, section: OnResponses) -> None:
    """Reads and packs the given responses; raises an error if they are not valid."""
    trainer.plan(trainer.examples(section), section)


def _adapted(config: Distilling) -> Distilling:
    """Returns the config in which every arm trains the adapters alone."""
    changes = {}
    for name in ("rl_only", *METHODS):
        section = getattr(config, name)
        optimizer = adapters.adapter_optimizer(section.optimizer, config.lora)
        changes[name] = dataclasses.replace(section, optimizer=optimizer)
    return dataclasses.replace(config, **changes)


def distill(
    work: Workspace,
    teacher: Teacher | None,
    problems: Sequence[Problem],
    config: Distilling,
    make_base: Callable[[Path], Any],
    settings: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Runs arms from one student; reports them beside the teacher and the untrained student.

    Stages that are complete in `work.directory` are not run again.

    Args:
      work: the student's workspace.
      teacher: has the same config; None if `config.data.responses` is all there is of it.
      problems: see `Distillation`.
      config: `methods`, the arms to run; `data`; `lora`; and the sections of `Distillation`.
      make_base: stage directory -> the student's parameters, from which every arm starts.
      settings: JSON-able; all that teacher and student depend on.

    Returns:
      `teacher`, `base` and each arm -> `{"wall_seconds", "params", "train_flops", "metrics"}`.
      Teacher and base were trained before, so their `train_flops` are 0.
    """
    trainer = prepare(work, teacher, problems, config)

    def of_teacher(directory):
        spent = 0.0
        if not config.data.responses:
            spent = responses.write(teacher.work, teacher.params, problems, config.data, directory)
        return stages.score(teacher.work, directory, teacher.params) | {"sampling_flops": spent}

    def of_base(directory):
        return stages.publish(work, directory, make_base(directory))

    def of_arm(arm, directory):
        method, distilled = config.distill_then_rl.method, None
        whole = arm == "distill_then_rl" and config.distill_then_rl.share == 1
        if whole and method in results and not config.lora.rank:
            distilled = stages.load_stage(work, method), results[method]["train_flops"]
        base = None if distilled else stages.load_stage(work, "base")
        params, spent = trainer.run(arm, base, directory, distilled)
        return stages.publish(work, directory, params) | {"train_flops": spent}

    results, sizes = {}, {}
    data_settings = {**settings, "data": as_dict(config.data)}
    if teacher is not None:
        results["teacher"] = stages.run_stage(work, "teacher", data_settings, of_teacher)
        sizes["teacher"] = teacher.work.model.config.num_params
        trainer = dataclasses.replace(trainer, sampling_flops=results["teacher"]["sampling_flops"])
    results["base"] = stages.run_stage(work, "base", settings, of_base)
    for arm in config.methods:
        sections = {
            part: as_dict(getattr(config, part)) for part in (arm, "lora", *config.parts(arm))
        }
        train = functools.partial(of_arm, arm)
        results[arm] = stages.run_stage(work, arm, data_settings | sections, train)
    return {
        name: {
            "wall_seconds": result["wall_seconds"],
            "params": sizes.get(name, work.model.config.num_params),
            "train_flops": result.get("train_flops", 0.0),
            "metrics": result["metrics"],
            **{key: result[key] for key in report.LISTED if key in result},
        }
        for name, result in results.items()
    }
