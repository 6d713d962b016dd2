"""Distillation put together from a config: a teacher's reasoning in a smaller student.

Three methods (`METHODS`), and two arms to compare them with (`ARMS`):

    sequence         SFT on what the teacher wrote (DeepSeek-R1-Distill; arXiv:2501.12948)
    logit            the teacher's distribution at every token of what it wrote
    on_policy        the teacher's distribution at every token of what the student wrote (GKD)
    rl_only          RL with verifiable rewards from the same student, without a teacher
    distill_then_rl  a method with a share of its training, then RL with the rest of its own

Each starts from the same student and is reported with the FLOPs that it took from there: sampling by
teacher and student, the teacher's forward passes and three times the student's in updates.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from launch import flops, report, stages, training
from launch.stages import Workspace
from models.sampler import SamplingParams
from reasoning.evaluation import Graded, grade
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import get_task
from rl.learner import ProblemStream
from rl.on_policy_distillation import OnPolicySource
from rl.rollouts import RolloutSampler
from train import distillation, sft
from train.data import Example, encode_records, read_jsonl
from train.metrics import METRICS_FILE
from train.optimizer import make_optimizer
from train.step import make_train_step

METHODS = ("sequence", "logit", "on_policy")
ARMS = ("rl_only", *METHODS, "distill_then_rl")

RESPONSES_FILE = "responses.jsonl"
KEEP = ("correct", "all")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A student, its teacher, and what they are trained and sampled with.

    Attributes:
      student, teacher: workspaces of one directory; each has its own model and tokenizer.
      teacher_params: on the mesh; never changed.
      problems: whose prompts the teacher, or the student, answers.
      config: has a section for `data` and for each arm that is run.
    """

    student: Workspace
    teacher: Workspace
    teacher_params: Any
    problems: Sequence[Problem]
    config: Any

    def check(self, arms: Sequence[str]) -> None:
        """Finds what is wrong with the config before any long work.

        Raises:
          ValueError: an unknown arm, a bad setting, or models that share no vocabulary where a
            method needs one; one line.
        """
        if unknown := [arm for arm in arms if arm not in ARMS]:
            raise ValueError(f"method {unknown[0]!r} is unknown; choose of {', '.join(ARMS)}")
        if self.config.data.keep not in KEEP:
            raise ValueError(
                f"data.keep={self.config.data.keep!r} is unknown; choose one of {', '.join(KEEP)}"
            )
        needed = set(arms)
        if "distill_then_rl" in arms:
            needed |= {self.config.distill_then_rl.method, "rl_only"}
        for method in sorted(needed & {"logit", "on_policy"}):
            check_vocabulary(method, self.student, self.teacher)
        if "rl_only" in needed:
            training.plan_reinforce(self.student, list(self.problems), self.config.rl_only)

    def run(self, arm: str, params: Any, directory: Path) -> tuple[Any, float]:
        """Trains the student, whose `params` are taken over; returns new ones and the FLOPs."""
        if arm != "distill_then_rl":
            return getattr(self, arm)(params, directory)
        config = self.config.distill_then_rl
        method = getattr(self, config.method)
        params, spent = method(params, directory / config.method, config.share)
        params, more = self.rl_only(params, directory / "rl", 1 - config.share)
        return params, spent + more

    def sequence(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        config = self.config.sequence
        return self._on_responses(params, directory, share, config, sft.make_loss, None)

    def logit(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        config = self.config.logit
        return self._on_responses(
            params, directory, share, config, lambda model: self._loss(config), self.teacher_params
        )

    def on_policy(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        config, work = self.config.on_policy, self.student
        steps = max(1, round(share * config.steps))
        optimizer = make_optimizer(config.optimizer.to_dict(), work.model.abstract_params, steps)
        step = make_train_step(
            self._loss(config),
            optimizer,
            work.mesh,
            accumulate=config.microbatches,
            constants=self.teacher_params,
        )
        template = get_template(work.config.template, work.tokenizer)
        generator = work.generator(config.sampler_rows)
        source = OnPolicySource(
            RolloutSampler(
                generator,
                template,
                None,
                group=config.group,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.sampling_temperature),
            ),
            ProblemStream(self.problems, work.seed),
            prompts=config.prompts,
            rows=config.rows,
            row_length=config.row_length,
            microbatches=config.microbatches,
            seed=work.seed,
        )
        plan = training.SupervisedPlan(
            settings={"on_policy": config.to_dict(), "steps": steps, "seed": work.seed},
            source=source,
            num_steps=steps,
            optimizer=optimizer,
            step=step,
            checkpoint_every=config.checkpoint_every,
            log_every=1,
        )
        params = training.fine_tune(work, params, plan, directory)
        generator.params = None
        records = report.read_metrics(directory / METRICS_FILE)
        sampled, trained = (
            sum(record[name] for record in records) for name in ("sampled_tokens", "sequence_tokens")
        )
        context = trained / (2 * steps * config.prompts * config.group)
        student, teacher = (
            each.model.config.flops_per_token(context) for each in (self.student, self.teacher)
        )
        return params, sampled * student + trained * (flops.UPDATE * student + teacher)

    def rl_only(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        config, work = self.config.rl_only.copy_and_resolve_references(), self.student
        config.steps = max(1, round(share * config.steps))
        plan = training.plan_reinforce(work, list(self.problems), config)
        params = training.reinforce(work, params, plan, directory)
        prompts = [plan.template(problem.question) for problem in self.problems]
        prompt = np.mean([len(ids) for ids in work.tokenizer.encode_batch(prompts)])
        total = 0.0
        for record in report.read_metrics(directory / METRICS_FILE):
            response = record["response_tokens"]
            per_token = work.model.config.flops_per_token((prompt + response) / 2)
            sampled = config.prompts * (prompt + config.group * response)
            # `tokens` are those of completions with an advantage, each trained after its prompt.
            trained = record["tokens"] * (1 + prompt / response)
            total += per_token * (sampled + flops.UPDATE * trained)
        return params, total

    def _loss(self, config):
        return distillation.make_loss(
            self.student.model,
            self.teacher.model,
            beta=config.beta,
            temperature=config.temperature,
        )

    def _on_responses(self, params, directory, share, config, make_loss, teacher_params):
        """Training on a share of the teacher's responses, its first ones."""
        work = self.student
        directory_of_teacher = work.stage_directory("teacher")
        records = [record for _, record in read_jsonl(directory_of_teacher / RESPONSES_FILE)]
        count = max(1, round(share * len(records)))
        examples = encode_responses(work, records[:count])
        plan = training.plan_supervised(
            work,
            examples,
            config,
            epochs=config.epochs,
            microbatches=config.microbatches,
            too_long=config.too_long,
            make_loss=make_loss,
            constants=teacher_params,
        )
        params = training.fine_tune(work, params, plan, directory)
        lengths = [len(e["tokens"]) for e in examples if len(e["tokens"]) <= config.row_length]
        student = flops.forward(work.model.config, lengths)
        spent = flops.UPDATE * student
        if teacher_params is not None:
            spent += flops.forward(self.teacher.model.config, lengths)
        sampling = json.loads((directory_of_teacher / stages.RESULT_FILE).read_text())
        return params, config.epochs * spent + share * sampling["sampling_flops"]


def write_responses(
    teacher: Workspace, params: Any, problems: Sequence[Problem], config: Any, path: Path
) -> float:
    """Samples the teacher's responses, keeps those it is to be imitated in, and writes them.

    Args:
      config: samples (of each problem), max_new_tokens, temperature, sampler_rows, and keep:
        `correct` (and well formed), or `all`.

    Returns:
      FLOPs of sampling, of what was not kept too.

    Raises:
      ValueError: no response is worth keeping.
    """
    template = get_template(teacher.config.template, teacher.tokenizer)
    prompts = [template(problem.question) for problem in problems]
    stages.check_prompts(teacher, prompts, config.max_new_tokens)
    generator = teacher.generator(config.sampler_rows)
    generator.params = params
    with jax.set_mesh(teacher.mesh):
        completions = generator.generate(
            prompts,
            num_samples=config.samples,
            max_new_tokens=config.max_new_tokens,
            sampling=SamplingParams(temperature=config.temperature),
            seed=teacher.seed,
        )
    generator.params = None
    graded: dict[int, list[Graded]] = {}
    for name in dict.fromkeys(problem.task for problem in problems):
        members = [i for i, problem in enumerate(problems) if problem.task == name]
        rows = grade(
            get_task(name),
            *([each[i] for i in members] for each in (problems, prompts, completions)),
        )
        graded |= dict(zip(members, rows, strict=True))
    everything = [each for i in range(len(problems)) for each in graded[i]]
    kept = [each for each in everything if config.keep == "all" or _imitable(each)]
    print(f"{len(kept)} of {len(everything)} responses of the teacher are kept", flush=True)
    if not kept:
        raise ValueError(
            f"none of the teacher's {len(everything)} responses is correct and well formed; set"
            " data.keep='all', or use another teacher"
        )
    # A share of the responses is to be like all of them, not their first task.
    order = np.random.default_rng([teacher.seed, len(kept)]).permutation(len(kept))
    lines = [json.dumps(kept[i].record(), ensure_ascii=False) + "\n" for i in order]
    report.write_atomically(path, "".join(lines))
    lengths = [len(ids) for ids in teacher.tokenizer.encode_batch(prompts)]
    drawn = np.array([[len(c.token_ids) for c in group] for group in completions])
    return flops.sampling(teacher.model.config, lengths, drawn)


def _imitable(graded: Graded) -> bool:
    return graded.verdict.correct and graded.well_formed and graded.completion.finish != "length"


def encode_responses(work: Workspace, records: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Records of `question` and `response` for the student: in its template and its tokens."""
    template = get_template(work.config.template, work.tokenizer)
    pairs = [
        {"prompt": template(record["question"]), "response": record["response"]}
        for record in records
    ]
    return encode_records(pairs, work.tokenizer, add_special_tokens=False)


def check_vocabulary(method: str, student: Workspace, teacher: Workspace) -> None:
    """Raises `ValueError` unless every id means the same token to student and teacher."""
    size, other = student.tokenizer.vocab_size, teacher.tokenizer.vocab_size
    for i in range(max(size, other)):
        ours, theirs = (each.tokenizer.token_bytes(i) for each in (student, teacher))
        if ours != theirs:
            raise ValueError(
                f"method {method!r} compares distributions over tokens, but token {i} is {ours!r}"
                f" to the student and {theirs!r} to the teacher: choose models of one vocabulary,"
                " or method 'sequence'"
            )


def distill(
    work: Workspace,
    teacher: Workspace,
    teacher_params: Any,
    problems: Sequence[Problem],
    config: Any,
    arms: Sequence[str],
    make_base: Callable[[Path], Any],
    settings: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Runs arms from one student and reports them beside their teacher and the student's start.

    Whatever is complete in `work.directory` is not run again.

    Args:
      work, teacher: of the student and of the teacher, with the same directory and config.
      config: see `Distillation`.
      make_base: stage directory -> the student's parameters, that every arm starts from.
      settings: JSON-able; all that teacher and student depend on.

    Returns:
      `teacher`, `base` and each arm -> `{"wall_seconds", "params", "train_flops", "metrics"}`.
      Those of the teacher and the base are of before this, so their `train_flops` are 0.
    """
    trainer = Distillation(work, teacher, teacher_params, problems, config)
    trainer.check(arms)
    data = settings | {"data": config.data.to_dict()}

    def of_teacher(directory):
        spent = write_responses(
            teacher, teacher_params, problems, config.data, directory / RESPONSES_FILE
        )
        return stages.score(teacher, directory, teacher_params) | {"sampling_flops": spent}

    def of_base(directory):
        return stages.publish(work, directory, make_base(directory))

    def of_arm(arm, directory):
        params, spent = trainer.run(arm, stages.load_stage(work, "base"), directory)
        return stages.publish(work, directory, params) | {"train_flops": spent}

    results = {
        "teacher": stages.run_stage(teacher, "teacher", data, of_teacher),
        "base": stages.run_stage(work, "base", settings, of_base),
    }
    for arm in arms:
        train = functools.partial(of_arm, arm)
        results[arm] = stages.run_stage(work, arm, data | _sections(config, arm), train)
    models = {"teacher": teacher.model}
    return {
        name: {
            "wall_seconds": result["wall_seconds"],
            "params": models.get(name, work.model).config.num_params,
            "train_flops": result.get("train_flops", 0.0),
            "metrics": result["metrics"],
        }
        for name, result in results.items()
    }


def _sections(config, arm):
    """What an arm's result depends on, besides the data."""
    names = [arm]
    if arm == "distill_then_rl":
        names += [config.distill_then_rl.method, "rl_only"]
    return {name: config[name].to_dict() for name in names}
