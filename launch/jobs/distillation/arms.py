"""The arms of a distillation: each trains the student in one way and counts what it spends.

There are three methods, and two arms to compare them with:

    sequence         SFT on what the teacher wrote (DeepSeek-R1-Distill; arXiv:2501.12948)
    logit            the teacher's distributions at the tokens of what it wrote
    on_policy        the teacher's distributions at the tokens of what the student wrote (GKD)
    rl_only          RL with verifiable rewards from the same student, without a teacher
    distill_then_rl  a method with a share of its training, then RL with a share of RL's own

The FLOPs of an arm are those of sampling by teacher and student, of the teacher's forward passes,
and three forward passes of the student for an update.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from launch.jobs import adapters, responses
from launch.jobs.training import reinforcement, supervised
from launch.parts import flops
from launch.parts.stages import Workspace
from launch.schema import as_dict
from launch.schema.distill import Distilling, Logit, OnPolicy, OnResponses
from models.decoding.sampling import SamplingParams
from reasoning.problem import Problem
from reasoning.prompts import get_template
from rl.on_policy_distillation import OnPolicySource
from rl.problem_stream import ProblemStream
from rl.rollouts import RolloutSampler
from train.data import Example
from train.metrics import read_metrics
from train.objectives import distillation, sft, teacher_logprobs
from train.optimizer import make_optimizer
from train.source import fitted
from train.step import LossFn, make_train_step

# The folder of the SFT that comes before on-policy distillation.
WARM_START = "warm_start"
TOP_FILE = "teacher_logprobs.npz"

Training = TypeVar("Training", OnResponses, Logit)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The teacher: a workspace with its model and tokenizer, and its parameters.

    The parameters may be None while they are not needed.
    """

    work: Workspace
    params: Any


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A student, its teacher, and the data and settings of their arms.

    Attributes:
      work: the student's workspace.
      teacher: None if `data` holds all that is needed of the teacher.
      problems: the student answers their prompts, on-policy and in RL.
      config: has a section for each arm to run.
      data: files of the teacher's responses; see `launch.jobs.responses.read`.
      sampling_flops: FLOPs that sampling `data` took.
    """

    work: Workspace
    teacher: Teacher | None
    problems: Sequence[Problem]
    config: Distilling
    data: str
    sampling_flops: float = 0.0

    def run(
        self, arm: str, params: Any, directory: Path, distilled: tuple[Any, float] | None = None
    ) -> tuple[Any, float]:
        """Trains the student by one arm; returns new parameters and the FLOPs spent.

        Args:
          arm: a name of `launch.schema.distill.ARMS`.
          params: the student's parameters, whose buffers the training reuses.
          directory: the stage's directory.
          distilled: for `distill_then_rl`, the result of its method if there is one already; RL
            then continues from it, and `params` are not needed.
        """
        params = adapters.attached(self.work, params)
        if arm == "distill_then_rl":
            config = self.config.distill_then_rl
            method = getattr(self, config.method)
            if distilled is None:
                params, spent = method(params, directory / config.method, config.share)
            else:
                params, spent = distilled
            params, more = self.rl_only(params, directory / "rl", config.rl_share)
            spent += more
        else:
            params, spent = getattr(self, arm)(params, directory)
        return self.work.model.merge(params), spent

    def sequence(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        """Fine-tunes the student on the teacher's responses; returns parameters and FLOPs.

        Args:
          share: the part of the method's training to do.
        """
        config = _shorter(self.config.sequence, share)
        examples = self.examples(config)
        params = supervised.fine_tune(self.work, params, self.plan(examples, config), directory)
        return params, self._cost(examples, config)

    def logit(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        """Trains on the teacher's distributions at its own tokens; see `sequence`."""
        config, teacher = _shorter(self.config.logit, share), self.teacher
        examples = self.examples(config)
        passes = config.epochs
        if config.top_k is None:
            plan = self.plan(
                examples, config, lambda model: self._divergence(config), teacher.params
            )
        else:
            top_loss = functools.partial(
                distillation.make_top_loss, beta=config.beta, temperature=config.temperature
            )
            plan = self.plan(self._with_top(examples, config, directory), config, top_loss)
            passes = 1
        params = supervised.fine_tune(self.work, params, plan, directory)
        seen = flops.forward(teacher.work.model.config, _lengths(examples))
        return params, self._cost(examples, config) + passes * seen

    def on_policy(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        """Trains on the teacher's distributions at the student's tokens; see `sequence`.

        With `warm_start`, a share of the method `sequence` comes first, so that the student's own
        samples are worth the teacher's attention from the beginning.
        """
        config, work = self.config.on_policy, self.work
        warmed = 0.0
        if config.warm_start:
            params, warmed = self.sequence(params, directory / WARM_START, config.warm_start)
        steps = max(1, round(share * config.steps))
        optimizer = make_optimizer(config.optimizer.settings(), work.model.abstract_params, steps)
        step = make_train_step(
            self._divergence(config),
            optimizer,
            work.mesh,
            accumulate=config.microbatches,
            constants=self.teacher.params,
        )
        generator = work.generator(config.sampler_rows)
        sampler = RolloutSampler(
            generator,
            get_template(work.config.template, work.tokenizer),
            None,
            group=config.group,
            max_new_tokens=config.max_new_tokens,
            sampling=SamplingParams(temperature=config.sampling_temperature),
        )
        off_policy = None
        if config.on_policy_share < 1:
            off_policy = supervised.packed(work, self.examples(config), config)
        source = OnPolicySource(
            sampler,
            ProblemStream(self.problems, work.seed),
            prompts=config.prompts,
            rows=config.rows,
            row_length=config.row_length,
            microbatches=config.microbatches,
            seed=work.seed,
            share=config.on_policy_share,
            off_policy=off_policy,
            merge=work.model.merge,
        )
        plan = supervised.SupervisedPlan(
            settings={"on_policy": as_dict(config), "steps": steps, "seed": work.seed},
            source=source,
            num_steps=steps,
            optimizer=optimizer,
            step=step,
            checkpoint_every=config.checkpoint_every,
            log_every=1,
        )
        params = supervised.fine_tune(work, params, plan, directory)
        generator.release()
        records = read_metrics(directory)
        sampled, trained = (
            sum(record[name] for record in records)
            for name in ("sampled_tokens", "sequence_tokens")
        )
        context = trained / (2 * steps * config.prompts * config.group)
        student = work.model.config.flops_per_token(context)
        teacher = self.teacher.work.model.config.flops_per_token(context)
        spent = sampled * student + trained * (flops.UPDATE * student + teacher)
        return params, warmed + spent

    def rl_only(self, params: Any, directory: Path, share: float = 1.0) -> tuple[Any, float]:
        """Trains by RL with verifiable rewards, without the teacher; see `sequence`."""
        config, work = self.config.rl_only, self.work
        steps = max(1, round(share * config.num_steps(len(self.problems))))
        config = dataclasses.replace(config, steps=steps)
        plan = reinforcement.plan_reinforce(work, list(self.problems), config)
        params = reinforcement.reinforce(work, params, plan, directory)
        prompts = [plan.template(problem.question) for problem in self.problems]
        prompt = np.mean([len(ids) for ids in work.tokenizer.encode_prompts(prompts)])
        total = 0.0
        for record in read_metrics(directory):
            response = record["response_tokens"]
            per_token = work.model.config.flops_per_token((prompt + response) / 2)
            sampled = config.prompts * (prompt + config.group * response)
            # `tokens` counts the completions with an advantage; each is trained with its prompt.
            trained = record["tokens"] * (1 + prompt / response)
            total += per_token * (sampled + flops.UPDATE * trained)
        return params, total

    def _divergence(self, config):
        return distillation.make_loss(
            self.work.model,
            self.teacher.work.model,
            beta=config.beta,
            temperature=config.temperature,
        )

    def examples(self, config: OnResponses | OnPolicy) -> list[Example]:
        """Returns the teacher's responses as examples; `config.too_long` treats long ones."""
        examples = responses.read(self.work, self.data, self.config.data.ngram)
        return fitted(examples, config.row_length, config.too_long)

    def _with_top(self, examples, config, directory):
        """Adds the teacher's log-probs of its `top_k` likeliest tokens, which are stored."""
        path = directory / TOP_FILE
        if not path.exists():
            model = self.teacher.work.model
            computed = teacher_logprobs.compute(
                model,
                self.teacher.params,
                examples,
                config.top_k,
                mesh=self.work.mesh,
                rows=config.rows,
                row_length=config.row_length,
                temperature=config.temperature,
                vocab=distillation.shared_vocab(self.work.model, model),
            )
            teacher_logprobs.save(path, computed)
        return teacher_logprobs.load(path, examples)

    def plan(
        self,
        examples: list[Example],
        config: OnResponses,
        make_loss: Callable[[Any], LossFn] = sft.make_loss,
        constants: Any = None,
    ) -> supervised.SupervisedPlan:
        """Plans training on `examples`; next-token prediction by default."""
        return supervised.plan_supervised(
            self.work,
            examples,
            config,
            epochs=config.epochs,
            microbatches=config.microbatches,
            curriculum=config.curriculum,
            make_loss=make_loss,
            constants=constants,
        )

    def _cost(self, examples, config):
        """Returns the FLOPs of the teacher's sampling and the student's updates."""
        update = flops.UPDATE * flops.forward(self.work.model.config, _lengths(examples))
        return self.sampling_flops + config.epochs * update


def _shorter(config: Training, share: float) -> Training:
    """Returns the config with a share of its epochs, rounded so that all samples are seen."""
    return dataclasses.replace(config, epochs=max(1, round(share * config.epochs)))


def _lengths(examples):
    return [len(example["tokens"]) for example in examples]
