"""Trains verifiers of a policy: samples its solutions, labels them by rollouts, learns from them.

Three verifiers are trained on the same solutions, each from the policy's own weights: a process
reward model on soft step labels, one on hard labels (arXiv:2312.08935), and an outcome reward model
(arXiv:2110.14168). Each may also keep learning to write the right solutions. As in
`launch.jobs.training` there is a plan, whose making finds mistakes in the settings, and the work
itself, which continues where it was interrupted.

A directory holds `labels/` (JSONL by task and chunk) and, for each verifier, `checkpoints/`,
`metrics.jsonl` and, once it is trained, `hf/`.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from launch.jobs.training import supervised
from launch.parts.stages import Workspace, check_prompts
from launch.schema.recipe import Verifiers
from models.hf.export import export_model
from models.hf.load import LoadedModel, load_scalar_model
from models.scalar_head import ScalarModel
from models.seeds import derive_seed
from reasoning.generation.step_splitter import StepSplitter
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate, get_template
from reasoning.tasks import Task, get_task
from reasoning.training_data.prm_step_labels import (
    LabelledSolution,
    LabelSettings,
    hard_labels,
    label_steps,
)
from reasoning.verifiers import process_bench
from reasoning.verifiers.outcome import OutcomeVerifier
from reasoning.verifiers.process import ProcessVerifier
from reasoning.verifiers.process_bench import Annotated
from train.data import Example
from train.objectives import process_reward
from train.optimizer import make_optimizer
from train.progress import Progress
from train.step import make_train_step

PROCESS_SOFT, PROCESS_HARD, OUTCOME = "process_soft", "process_hard", "outcome"
VERIFIERS = (PROCESS_SOFT, PROCESS_HARD, OUTCOME)


@dataclasses.dataclass(frozen=True)
class VerifierPlan:
    """The training of a policy's verifiers, without weights; making it checks the config.

    Attributes:
      config: the settings of sampling, labels and training.
      problems: each task with its training problems.
      template: question -> prompt.
      labelling: how steps are labelled.
      work: the policy's workspace, with the scalar model in the place of the policy.
      choice, measurement: planted errors, on which `process_bench` chooses its threshold and is
        measured; empty if no task has planted errors.
    """

    config: Verifiers
    problems: list[tuple[Task, list[Problem]]]
    template: PromptTemplate
    labelling: LabelSettings
    work: Workspace
    choice: list[Annotated]
    measurement: list[Annotated]


def plan_verifiers(work: Workspace, config: Verifiers) -> VerifierPlan:
    """Draws the problems and checks the settings before any solution is sampled.

    Args:
      work: the policy's workspace.
      config: what to sample, label and train. Of each task with planted errors, `bench_problems`
        problems are measured on, and as many again choose the threshold.

    Raises:
      ValueError: in one line: a setting is bad, or a prompt leaves no room for its response.
    """
    fields = {f.name for f in dataclasses.fields(LabelSettings)} - {"seed"}
    labelling = LabelSettings(**{name: getattr(config, name) for name in fields}, seed=work.seed)
    if config.language_share and not work.model.config.tie_embeddings:
        raise ValueError(
            f"language_share={config.language_share} needs a model with tied embeddings, and this "
            "one has an LM head of its own, which a verifier does not keep: set it to 0"
        )
    problems = []
    for spec, count in config.problems.items():
        task = get_task(spec)
        wanted = None if count == -1 else count
        problems.append((task, task.problems("train", wanted, work.seed)))
    template = get_template(work.config.template, work.tokenizer)
    prompts = [template(p.question) for _, of_task in problems for p in of_task]
    check_prompts(work, prompts, labelling.max_new_tokens, config.row_length)
    scalar = dataclasses.replace(work, model=ScalarModel(work.model.config))
    # The number of steps is known only when there are solutions; the settings are checked now.
    optimizer = make_optimizer(config.optimizer.settings(), scalar.model.abstract_params, 10**9)
    loss = process_reward.make_loss(scalar.model)
    make_train_step(loss, optimizer, work.mesh).check_rows(config.rows, config.row_length)
    planted = _planted_errors(work, config, [task for task, _ in problems], template)
    return VerifierPlan(config, problems, template, labelling, scalar, *planted)


def _planted_errors(
    work: Workspace, config: Verifiers, tasks: Sequence[Task], template: PromptTemplate
) -> tuple[list[Annotated], list[Annotated]]:
    splitter, count = StepSplitter(work.tokenizer, config.delimiter), config.bench_problems
    parts: tuple[list[Annotated], list[Annotated]] = ([], [])
    for task in tasks:
        if not task.plants_errors:
            continue
        problems = task.problems("test", 2 * count, work.seed)
        for i, part in enumerate(parts):
            part += process_bench.planted_errors(
                task, problems[i * count : (i + 1) * count], template, work.tokenizer, splitter,
                derive_seed(work.seed, "bench", i),
            )  # fmt: skip
    return parts


def train_verifiers(
    work: Workspace, params: Any, plan: VerifierPlan, directory: Path
) -> dict[str, Any]:
    """Samples and labels solutions, trains the verifiers and measures them.

    Args:
      work: the policy's workspace.
      params: the policy's parameters, which stay valid.
      plan: see `plan_verifiers`.
      directory: where everything is written.

    Returns:
      `{"labels": {...}, "process_bench": {"soft": {...}, "hard": {...}}}`. `labels` has the numbers
      of solutions, steps and tokens, and the mean label. `process_bench` has the figures of
      `process_bench.measure`; it is empty if no task has planted errors.
    """
    generator = work.generator(plan.config.sampler_rows)
    solutions: list[LabelledSolution] = []
    with generator.holding(params), jax.set_mesh(work.mesh):
        for i, (task, problems) in enumerate(plan.problems):
            folder = directory / "labels" / str(i)
            done = len(list(folder.glob("[0-9]*.jsonl"))) * plan.labelling.chunk
            progress = Progress(f"labels of {task.name}", len(problems), min(done, len(problems)))
            with contextlib.closing(progress):
                solutions += label_steps(
                    generator, task, problems, plan.template, plan.labelling, folder,
                    lambda count, progress=progress: progress.update(count, {}),
                )  # fmt: skip
    _train(params, plan, solutions, directory)
    return {"labels": _summary(solutions), "process_bench": _measure(plan, directory)}


def load_process_verifier(
    plan: VerifierPlan, directory: Path, name: str = PROCESS_SOFT
) -> ProcessVerifier:
    """Loads one of the two trained process verifiers, for responses of the policy's generator."""
    loaded = _load(plan, directory / name)
    return ProcessVerifier(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        generator_tokenizer=plan.work.tokenizer,
        delimiter=plan.labelling.delimiter,
    )


def load_outcome_verifier(plan: VerifierPlan, directory: Path) -> OutcomeVerifier:
    """Loads the trained outcome verifier, for responses of the policy's generator."""
    loaded = _load(plan, directory / OUTCOME)
    return OutcomeVerifier(
        loaded.model, loaded.params, loaded.tokenizer, generator_tokenizer=plan.work.tokenizer
    )


def _load(plan: VerifierPlan, directory: Path) -> LoadedModel[ScalarModel]:
    config = plan.work.model.config
    # A checkpoint does not hold the settings that belong to the run.
    settings = {name: getattr(config, name) for name in ("dtype", "param_dtype", "scan_unroll")}
    return load_scalar_model(directory / "hf", plan.work.mesh, **settings)


def training_examples(
    plan: VerifierPlan, solutions: Sequence[LabelledSolution]
) -> dict[str, list[Example]]:
    """Returns the training examples of each verifier by name, one for each solution."""
    config = plan.config
    prompts = plan.work.tokenizer.encode_prompts([each.prompt for each in solutions])
    examples: dict[str, list[Example]] = {name: [] for name in VERIFIERS}
    for ids, solution in zip(prompts, solutions, strict=True):
        tokens, ends = solution.token_ids, solution.step_ends
        hard, outcome = hard_labels(solution.labels), float(solution.correct)
        made = {
            PROCESS_SOFT: process_reward.process_example(ids, tokens, ends, solution.labels),
            PROCESS_HARD: process_reward.process_example(ids, tokens, ends, hard),
            OUTCOME: process_reward.outcome_example(ids, tokens, outcome, config.outcome_at),
        }
        for name, example in made.items():
            if config.language_share:
                example = process_reward.with_language(
                    example, len(ids), config.language_share, solution.correct
                )
            examples[name].append(example)
    return examples


def _plan_training(
    plan: VerifierPlan, examples: Mapping[str, list[Example]]
) -> dict[str, supervised.SupervisedPlan]:
    """Makes plans that share one compiled step: batches differ in labels and weights alone."""
    config, plans = plan.config, {}
    for name, of_verifier in examples.items():
        planned = supervised.plan_supervised(
            plan.work,
            of_verifier,
            config,
            epochs=config.epochs,
            make_loss=process_reward.make_loss,
            finalize=process_reward.mean_metrics,
        )
        shared = next(iter(plans.values()), planned)
        plans[name] = dataclasses.replace(
            planned, step=shared.step, settings={**planned.settings, "verifier": name}
        )
    return plans


def _train(
    params: Any, plan: VerifierPlan, solutions: Sequence[LabelledSolution], directory: Path
) -> None:
    model = cast(ScalarModel, plan.work.model)  # `plan_verifiers` has put it there.
    waiting = [name for name in VERIFIERS if not (directory / name / "hf").exists()]
    plans = _plan_training(plan, training_examples(plan, solutions))
    for name in waiting:
        # The policy's weights are copied, since training reuses the buffers it gets.
        key = jax.random.fold_in(jax.random.key(plan.work.seed), VERIFIERS.index(name))
        start = model.from_language_model(jax.tree.map(lambda x: x.copy(), params), key)
        trained = supervised.fine_tune(plan.work, start, plans[name], directory / name)
        export_model(
            directory / name / "hf", model.config, trained, plan.work.tokenizer, scalar_head=model
        )


def _summary(solutions: Sequence[LabelledSolution]) -> dict[str, Any]:
    labels = np.concatenate([each.labels for each in solutions])
    return {
        "solutions": len(solutions),
        "correct": float(np.mean([each.correct for each in solutions])),
        "steps": len(labels),
        "mean_label": float(labels.mean()),
        "generated_tokens": sum(each.generated_tokens for each in solutions),
        "prefill_tokens": sum(each.prefill_tokens for each in solutions),
    }


def _measure(plan: VerifierPlan, directory: Path) -> dict[str, Any]:
    """Measures the two process verifiers as ProcessBench does."""
    figures = {}
    for label, name in (("soft", PROCESS_SOFT), ("hard", PROCESS_HARD)) if plan.choice else ():
        verifier = load_process_verifier(plan, directory, name)
        with jax.set_mesh(plan.work.mesh):
            chosen_on, scores = (
                process_bench.step_scores(verifier, part)
                for part in (plan.choice, plan.measurement)
            )
        choice, errors = ([e.first_error for e in p] for p in (plan.choice, plan.measurement))
        threshold = process_bench.choose_threshold(chosen_on, choice)
        figures[label] = process_bench.measure(scores, errors, threshold, plan.work.seed)
        figures[label]["threshold"] = threshold
        # Each kind of error is also measured by itself.
        for kind in dict.fromkeys(e.kind for e in plan.measurement if e.kind):
            own = [i for i, e in enumerate(plan.measurement) if e.kind in (None, kind)]
            part = process_bench.measure(
                [scores[i] for i in own], [errors[i] for i in own], threshold, plan.work.seed
            )
            figures[label][f"{kind}_accuracy"] = part["error_accuracy"]
    return figures
