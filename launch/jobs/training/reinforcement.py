"""Reinforcement learning with verifiable rewards, as a config says.

A plan holds everything but the weights. Making it finds the mistakes in config, data and rewards.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from launch.jobs import adapters, warnings
from launch.jobs.training import outcome
from launch.parts import runtime
from launch.parts.endings import read_stop
from launch.parts.stages import Workspace, check_prompts
from launch.schema import as_dict
from launch.schema.rl import Reinforcement
from models import processes
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.decoding.weights import decoding_model
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate, get_template
from reasoning.server_client.rollout_server import RolloutServer
from rl.guards.collapse_guard import DEFAULT_RULES, CollapseGuard
from rl.guards.sampler_guard import SamplerGuard
from rl.kept_rollouts import KeptRollouts
from rl.learner import LearnerConfig, PolicySource, make_policy_loss
from rl.losses import mean_metrics
from rl.packed_rollouts import rows_needed
from rl.problem_stream import STREAMS
from rl.reference import ReferenceRenewal, copied
from rl.rewards.combine import RewardSet
from rl.rollouts import Rollouts, RolloutSampler
from rl.variants import Variant, get_variant
from train.checkpoint import Checkpointer
from train.loop import Hook, run
from train.metrics import MetricWriter
from train.optimizer import Optimizer, make_optimizer
from train.state import state_from_params
from train.step import TrainStep, make_train_step

# Rollouts that are written to samples.jsonl at a time.
SAMPLES_SHOWN = 4
# How often a run of RL shows its answers to the problems that are watched.
WATCHED = 5


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
        share_prompts=config.share_prompts,
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
    decoding_model(model.base, config.sampler_weights == "int8")  # Refuses models that cannot.
    trained = adapters.adapter_optimizer(config.optimizer, config.lora)
    optimizer = make_optimizer(trained.settings(), model.abstract_params, num_steps)
    variant, step = policy_step(model, optimizer, work.mesh, config)
    step.check_rows(config.rows, config.row_length)
    template = get_template(work.config.template, work.tokenizer)
    longest = check_prompts(
        work,
        [template(problem.question) for problem in problems],
        config.max_new_tokens,
        config.row_length,
    )
    _check_rows(work, config, longest)
    if config.rollout_server.url:
        _rollout_server(work, config, work.directory).check()
    used = config.rewards if rewards is None else rewards
    with _reward_set(used, config, num_workers=1) as reward_set:
        reward_set.check(template(problems[0].question), problems[0])
    return ReinforcePlan(
        model, config, num_steps, problems, template, used, variant, learner, optimizer, step
    )


def _check_rows(work: Workspace, config: Reinforcement, prompt: int) -> None:
    """Raises `ValueError` if completions cannot share prompts here, or may need more rows."""
    if not config.share_prompts:
        return
    if work.mesh.devices.flat[0].platform == "tpu":
        raise ValueError(
            "share_prompts=True: attention on TPUs has no shared prompts; set it to False, with as"
            " many rows as completions"
        )
    each = rows_needed(prompt, config.max_new_tokens, config.group, config.row_length)
    needed = config.prompts // config.minibatches * each
    if needed > config.rows:
        raise ValueError(
            f"{needed} rows of {config.row_length} tokens are needed where all completions are as"
            f" long as max_new_tokens={config.max_new_tokens} allows, but rows={config.rows}: raise"
            " rows, or lower prompts, group or max_new_tokens"
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
    outcome.refuse_stopped(work, directory)
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
            return outcome.last_good(work, directory, stop, checkpointer, state)
        generator, rounding = _rollout_generator(work, config, directory)
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
            STREAMS[config.adaptive_sampling](plan.problems, work.seed),
            plan.variant,
            plan.learner,
            seed=work.seed,
            reference_params=reference,
            renewal=renewal,
            kept=None if config.rollout_server.url else KeptRollouts(directory / "rollout"),
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
            # Older weights differ from the trainer's by more than rounding. The generator itself
            # compares the sampler with a forward pass of the weights that it samples with.
            guards.append(SamplerGuard(rounding))
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
    return outcome.finished(work, directory, result)


def _rollout_generator(
    work: Workspace, config: Reinforcement, directory: Path
) -> tuple[JaxGenerator | RolloutServer, str]:
    """Returns what samples the rollouts, and what its rounding is called (`MAX_KL`)."""
    model = work.model.base
    if config.rollout_server.url:
        return _rollout_server(work, config, directory), "server"
    weights, cache = config.sampler_weights == "int8", config.sampler_cache == "int8"
    if not (config.staleness or weights or cache):
        return work.generator(config.sampler_rows), model.config.dtype
    # Evaluations use the other one, at the same time or exactly.
    own = JaxGenerator(
        model, None, work.tokenizer, rows=config.sampler_rows, int8=weights, int8_cache=cache
    )
    return own, "int8" if weights or cache else model.config.dtype


def _rollout_server(work: Workspace, config: Reinforcement, directory: Path) -> RolloutServer:
    server = config.rollout_server
    if processes.count() > 1:
        raise ValueError(
            "config.rollout_server.url: a server samples for jobs of one process alone; leave it"
            " empty"
        )
    return RolloutServer(
        server.url, work.model.base, work.tokenizer, directory / "pushed",
        api_key_env=server.api_key_env, timeout_s=server.timeout_s,
        concurrency=server.concurrency,
    )  # fmt: skip


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
