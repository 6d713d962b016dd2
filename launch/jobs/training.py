"""Trains as a config says: pretraining, SFT and RL.

Each training has two parts: a plan, and the training itself. A plan holds everything but the
weights; making it finds the mistakes in config, data and rewards.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from launch.jobs import adapters, warnings
from launch.parts import runtime
from launch.parts.endings import Interrupted, Stop, Stopped, read_stop
from launch.parts.stages import Workspace, check_prompts
from launch.schema import as_dict
from launch.schema.distill import OnPolicy
from launch.schema.rl import Reinforcement
from launch.schema.sections import Packed, Pretraining
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate, get_template
from reasoning.training_data.distillation_data import short_first
from rl.collapse_guard import DEFAULT_RULES, CollapseGuard
from rl.kept_rollouts import KeptRollouts
from rl.learner import LearnerConfig, PolicySource, make_policy_loss
from rl.losses import mean_metrics
from rl.problem_stream import AdaptiveStream, ProblemStream
from rl.reference import ReferenceRenewal, copied
from rl.rewards.combine import RewardSet
from rl.rollouts import Rollouts, RolloutSampler
from rl.sampler_guard import SamplerGuard
from rl.variants import Variant, get_variant
from train.checkpoint import Checkpointer
from train.data import Example, encode_records
from train.loop import Hook, Result, run
from train.metrics import MetricWriter
from train.objectives import sft
from train.optimizer import Optimizer, make_optimizer
from train.source import PackedSource, Source
from train.state import TrainState, create_state, state_from_params
from train.step import LossFn, Metrics, TrainStep, make_train_step

# Rollouts that are written to samples.jsonl at a time.
SAMPLES_SHOWN = 4
# How often a run of RL shows its answers to the problems that are watched.
WATCHED = 5


@dataclasses.dataclass(frozen=True)
class SupervisedPlan:
    """A training on examples without its weights; making it checks config and data."""

    settings: Mapping[str, Any]
    source: Source
    num_steps: int
    optimizer: Optimizer
    step: TrainStep
    checkpoint_every: int
    log_every: int
    checkpoint_every_minutes: float | None = None


def plan_supervised(
    work: Workspace,
    examples: list[Example],
    config: Packed,
    *,
    epochs: int = 1,
    microbatches: int = 1,
    too_long: str = "error",
    curriculum: int = 1,
    make_loss: Callable[[Any], LossFn] = sft.make_loss,
    finalize: Callable[[Metrics], Metrics] = lambda metrics: metrics,
    constants: Any = None,
) -> SupervisedPlan:
    """Packs `examples` and makes their train step.

    Args:
      work: the run.
      examples: the training data.
      config: rows, optimizer and intervals.
      epochs: passes over the examples.
      microbatches: parts of a batch whose gradients are accumulated.
      too_long: what to do with examples longer than a row; see `PackedSource`.
      curriculum: stages of each epoch, with ever longer examples; 1 shuffles all.
      make_loss: model -> loss; next-token prediction by default.
      finalize, constants: see `make_train_step`.

    Raises:
      ValueError: in one line: an example does not fit, or a setting is bad.
    """
    if curriculum > 1:
        lengths = [len(example["tokens"]) for example in examples]
        examples = [examples[i] for i in short_first(lengths, curriculum, work.seed)]
    source = packed(work, examples, config, epochs, too_long, shuffle=curriculum == 1)
    num_steps = source.count_batches()
    optimizer = make_optimizer(config.optimizer.settings(), work.model.abstract_params, num_steps)
    step = make_train_step(
        make_loss(work.model),
        optimizer,
        work.mesh,
        accumulate=microbatches,
        finalize=finalize,
        constants=constants,
    )
    step.check_rows(config.rows)
    return SupervisedPlan(
        settings={"supervised": as_dict(config), "seed": work.seed},
        source=source,
        num_steps=num_steps,
        optimizer=optimizer,
        step=step,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        checkpoint_every_minutes=config.checkpoint_every_minutes,
    )


def packed(
    work: Workspace,
    examples: list[Example],
    config: Packed | OnPolicy,
    epochs: int | None = None,
    too_long: str = "error",
    shuffle: bool = True,
) -> PackedSource:
    """Returns batches of `config.rows` rows of `config.row_length`; endless without `epochs`."""
    # Packing does not keep the order within a window, so ordered examples get small windows.
    window: dict[str, Any] = {} if shuffle else {"window": 4 * config.rows}
    return PackedSource(
        examples,
        rows=config.rows,
        row_length=config.row_length,
        seed=work.seed,
        num_epochs=epochs,
        too_long=too_long,
        shuffle=shuffle,
        **window,
    )


def pretrain(work: Workspace, texts: list[str], config: Pretraining, directory: Path) -> Any:
    """Trains a base model from scratch by next-token prediction on `texts`, in one pass."""
    examples = encode_records([{"text": text} for text in texts], work.tokenizer)
    plan = plan_supervised(work, examples, config)
    state = create_state(work.model, plan.optimizer, work.mesh, jax.random.key(work.seed))
    return _supervise(work, state, plan, directory)


def fine_tune(work: Workspace, params: Any, plan: SupervisedPlan, directory: Path) -> Any:
    """Trains as planned from `params`, whose buffers it reuses; returns new parameters."""
    state = state_from_params(work.model, params, plan.optimizer, work.mesh)
    return _supervise(work, state, plan, directory)


def _supervise(work: Workspace, state: TrainState, plan: SupervisedPlan, directory: Path) -> Any:
    _refuse_stopped(work, directory)
    split, base = adapters.kept_apart(work, plan.optimizer, state.params)
    with Checkpointer(
        directory / "checkpoints",
        config={**plan.settings, **base},
        best_metric="loss",
        best_mode="min",
        split=split,
    ) as checkpointer:
        if (stop := read_stop(directory)) is not None:
            return _last_good(work, directory, stop, checkpointer, state)
        result = run(
            state,
            plan.step,
            plan.source,
            num_steps=plan.num_steps,
            title=directory.name,
            writer=MetricWriter(directory),
            checkpointer=checkpointer,
            checkpoint_every=plan.checkpoint_every,
            checkpoint_every_minutes=plan.checkpoint_every_minutes,
            log_every=plan.log_every,
        )
    return _finished(work, directory, result)


@dataclasses.dataclass(frozen=True)
class ReinforcePlan:
    """A training by RL with verifiable rewards, without its weights; making it checks config."""

    model: LanguageModel
    config: Reinforcement
    num_steps: int
    problems: list[Problem]
    template: PromptTemplate
    rewards: str | Mapping[str, Any]
    variant: Variant
    learner: LearnerConfig
    optimizer: Optimizer
    step: TrainStep


def policy_step(
    model: LanguageModel, optimizer: Optimizer, mesh: Mesh, config: Reinforcement
) -> tuple[Variant, TrainStep]:
    """Returns the RL algorithm that a config names, and its train step."""
    variant = get_variant(config.variant, **config.overrides())
    step = make_train_step(
        make_policy_loss(model, variant.loss, config.temperature),
        optimizer,
        mesh,
        accumulate=config.microbatches,
        normalize_weights=False,
        finalize=mean_metrics,
    )
    return variant, step


def plan_reinforce(
    work: Workspace,
    problems: list[Problem],
    config: Reinforcement,
    *,
    rewards: Mapping[str, Any] | None = None,
) -> ReinforcePlan:
    """Makes all that RL on `problems` needs, and tries the rewards once.

    Args:
      work: the run.
      problems: the training problems.
      config: the settings of RL.
      rewards: replace `config.rewards`.

    Raises:
      ValueError: in one line: a setting or a reward is bad, or a prompt leaves no room for its
        completion.
    """
    learner = LearnerConfig(
        prompts=config.prompts,
        rows=config.rows,
        row_length=config.row_length,
        microbatches=config.microbatches,
        minibatches=config.minibatches,
        epochs=config.epochs,
        recompute_old=config.recompute_old,
        max_resamples=config.max_resamples,
        staleness=config.staleness,
        fresh_every=config.checkpoint_every,
        overlap=runtime.programs_may_overlap(),
    )
    num_steps = config.num_steps(len(problems))
    model = adapters.adapted(work, config.lora).model
    trained = adapters.adapter_optimizer(config.optimizer, config.lora)
    optimizer = make_optimizer(trained.settings(), model.abstract_params, num_steps)
    variant, step = policy_step(model, optimizer, work.mesh, config)
    step.check_rows(config.rows)
    template = get_template(work.config.template, work.tokenizer)
    check_prompts(
        work,
        [template(problem.question) for problem in problems],
        config.max_new_tokens,
        config.row_length,
    )
    used = config.rewards if rewards is None else rewards
    with _reward_set(used, config, num_workers=1) as reward_set:
        reward_set.check(template(problems[0].question), problems[0])
    return ReinforcePlan(
        model, config, num_steps, problems, template, used, variant, learner, optimizer, step
    )


def _reward_set(
    rewards: str | Mapping[str, Any], config: Reinforcement, num_workers: int
) -> RewardSet:
    return RewardSet(
        rewards,
        num_workers=num_workers,
        timeout_s=config.reward_timeout_s,
        memory_mb=config.reward_memory_mb,
    )


def reinforce(
    work: Workspace,
    params: Any,
    plan: ReinforcePlan,
    directory: Path,
    *,
    evaluation: Callable[[Any], Mapping[str, float]] | None = None,
    evaluate_every: int | None = None,
    watch: Callable[[int, Any], None] | None = None,
) -> Any:
    """Trains by RL with verifiable rewards from `params`; returns new parameters.

    Args:
      work: the run.
      params: the policy's parameters, whose buffers the training reuses. With adapters, those of
        the base model; so are the parameters that this returns and that `evaluation` gets.
      plan: see `plan_reinforce`.
      directory: where the training writes.
      evaluation: params -> metrics; called every `evaluate_every` steps.
      evaluate_every: steps between evaluations.
      watch: (step, params) -> None; called `WATCHED` times, evenly spaced, and changes nothing.

    Raises:
      Interrupted: a signal ended the training.
      Stopped: the reward collapsed or updates were not finite, now or in an earlier run, and
        `work.accept_stopped` does not name the stage.
    """
    _refuse_stopped(work, directory)
    own_adapters = plan.model is not work.model
    if own_adapters:
        work = dataclasses.replace(work, model=plan.model)
        params = adapters.attached(work, params)
    params = _reinforce(work, params, plan, directory, evaluation, evaluate_every, watch)
    return work.model.merge(params) if own_adapters else params


def _reinforce(
    work: Workspace,
    params: Any,
    plan: ReinforcePlan,
    directory: Path,
    evaluation: Callable[[Any], Mapping[str, float]] | None,
    evaluate_every: int | None,
    watch: Callable[[int, Any], None] | None,
) -> Any:
    """Trains the parameters of `plan.model`; see `reinforce`."""
    config = plan.config
    reference = None
    if plan.variant.loss.beta > 0:
        # The reference shares what training does not change.
        reference = copied(params, plan.optimizer.split(params)[0])
    renewal = None
    if config.reference_every is not None:
        # References are kept for the two latest checkpoints, each of which may come a rollout's
        # updates late.
        horizon = 2 * (config.checkpoint_every + config.minibatches * config.epochs)
        renewal = ReferenceRenewal(config.reference_every, directory / "reference", horizon)
    state = state_from_params(work.model, params, plan.optimizer, work.mesh)
    split, base = adapters.kept_apart(work, plan.optimizer, state.params)
    settings = {"rl": as_dict(config) | {"steps": plan.num_steps}, "seed": work.seed}
    if config.extendable:  # A step does not depend on how many will follow.
        settings["rl"] |= {"steps": None, "data_epochs": None}
    with (
        _reward_set(plan.rewards, config, config.reward_workers) as reward_set,
        Checkpointer(
            directory / "checkpoints",
            config={**settings, **base},
            best_metric="reward",
            split=split,
        ) as checkpointer,
        contextlib.ExitStack() as stack,
    ):
        if (stop := read_stop(directory)) is not None:
            return _last_good(work, directory, stop, checkpointer, state)
        generator = work.generator(config.sampler_rows)
        if config.staleness:  # Evaluations may use that one while this one samples.
            generator = JaxGenerator(
                work.model.base, None, work.tokenizer, rows=config.sampler_rows
            )
        source = PolicySource(
            work.model,
            RolloutSampler(
                generator,
                plan.template,
                reward_set,
                group=config.group,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.temperature),
            ),
            (AdaptiveStream if config.adaptive_sampling else ProblemStream)(
                plan.problems, work.seed
            ),
            plan.variant,
            plan.learner,
            seed=work.seed,
            reference_params=reference,
            renewal=renewal,
            kept=KeptRollouts(directory / "rollout"),
        )
        writer = MetricWriter(directory)
        hooks = [
            Hook(config.sample_every, lambda step, state: _write_samples(writer, step, source.last))
        ]
        merge = work.model.merge
        if evaluation is not None and evaluate_every is not None:
            hooks.append(Hook(evaluate_every, lambda step, state: evaluation(merge(state.params))))
        if watch is not None:
            every = -(-plan.num_steps // WATCHED)
            hooks.append(Hook(every, lambda step, state: watch(step, merge(state.params))))
        # A run with nothing but a user's rewards has no format to watch.
        measured = {"reward", "entropy", *reward_set.weights}
        rules = {name: rule for name, rule in DEFAULT_RULES.items() if name in measured}
        stack.callback(source.close)
        guards = [CollapseGuard(rules), warnings.make_diagnosis(config, directory)]
        if not config.staleness:
            # Older weights differ from the trainer's by more than rounding. The generator still
            # compares the sampler with a forward pass of the weights that it samples with.
            guards.append(SamplerGuard(work.model.config.dtype))
        result = run(
            state,
            plan.step,
            source,
            num_steps=plan.num_steps,
            title=directory.name,
            writer=writer,
            checkpointer=checkpointer,
            checkpoint_every=config.checkpoint_every,
            checkpoint_every_minutes=config.checkpoint_every_minutes,
            hooks=hooks,
            guards=guards,
            log_every=1,
            show=("reward", "response_tokens", "accuracy", "format"),
            curves=("reward", "response_tokens"),
        )
        generator.release()
    return _finished(work, directory, result)


def _finished(work: Workspace, directory: Path, result: Result) -> Any:
    """Returns the parameters of a complete training.

    Raises:
      Interrupted: a signal ended the training.
      Stopped: the training stopped itself; this also records the stop in its directory.
    """
    if result.interrupted:
        raise Interrupted(result.stop_reason)
    reason = result.stop_reason
    if reason is None and not _finite(result.state.params):
        reason = "its weights are not finite"
    if reason is None:
        return result.state.params
    stop = Stop(reason, result.step, result.good_step)
    if jax.process_index() == 0:
        stop.write(directory)
    raise Stopped(stop.told(directory, work.stage_of(directory)))


def _refuse_stopped(work: Workspace, directory: Path) -> None:
    """Raises `Stopped` if a training stopped itself in an earlier run, unless that is accepted."""
    stop, stage = read_stop(directory), work.stage_of(directory)
    if stop is not None and (stage not in work.accept_stopped or stop.good_step is None):
        raise Stopped(stop.told(directory, stage))


def _last_good(
    work: Workspace, directory: Path, stop: Stop, checkpointer: Checkpointer, like: TrainState
) -> Any:
    """Returns the last good checkpoint's parameters of a training that stopped itself."""
    params = checkpointer.restore(like, stop.good_step)[0].params
    if not _finite(params):
        raise Stopped(
            f"the weights of checkpoint {stop.good_step} in {directory} are not finite either: give"
            " another config and another --workdir"
        )
    print(
        f"{directory.name}: stopped at step {stop.step} ({stop.reason}); the checkpoint of step"
        f" {stop.good_step} is taken, as --accept_stopped={work.stage_of(directory)} says",
        flush=True,
    )
    return params


def _finite(params: Any) -> bool:
    def all_finite(params):
        return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()

    return bool(jax.jit(all_finite)(params))


def _write_samples(writer: MetricWriter, step: int, rollouts: Rollouts | None) -> None:
    """Writes the first completion of the first few prompts, with its reward and the reasons."""
    if rollouts is None:  # Nothing has been drawn yet.
        return
    writer.write_samples(
        step,
        [
            {
                "prompt": rollouts.prompts[i],
                "response": rollouts.completions[i][0].text,
                "answer": rollouts.problems[i].answer,
                "reward": float(rollouts.rewards[i, 0]),
                "reasons": {name: column[i][0] for name, column in rollouts.reasons.items()},
            }
            for i in range(min(SAMPLES_SHOWN, len(rollouts.prompts)))
        ],
    )
