"""The stages of a recipe, put together from a config. Each leaves its weights and report on disk.

A stage's directory holds `hf/` (weights and tokenizer in HF layout), `checkpoints/` (orbax, to
resume from), `metrics.jsonl`, `samples.jsonl`, `tensorboard/`, `graded.jsonl` (every graded
response) and, once the stage is complete, `result.json`. A stage whose result is of the same
config is not run again.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from launch.report import write_atomically
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.hf.load import load_params
from models.sampler import SamplingParams
from models.tokenizer import Tokenizer
from reasoning.evaluation import Graded, evaluate
from reasoning.generator import JaxGenerator
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import Task, get_task
from rl.collapse_guard import CollapseGuard
from rl.learner import LearnerConfig, PolicySource, ProblemStream, make_policy_loss
from rl.losses import mean_metrics
from rl.rewards.combine import RewardSet
from rl.rollouts import Rollouts, RolloutSampler
from rl.variants import get_variant
from train import sft
from train.checkpoint import Checkpointer
from train.data import encode_records
from train.loop import Hook, run
from train.metrics import MetricWriter
from train.optimizer import make_optimizer
from train.source import PackedSource
from train.state import create_state, state_from_params
from train.step import make_train_step

# Rollouts shown in samples.jsonl at a time.
SAMPLES_SHOWN = 4


class Interrupted(Exception):
    """A signal ended a stage; the same command goes on with it."""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """What the stages of one training run share.

    Attributes:
      directory: of this run; each stage has a folder in it.
      seed: of this run; every random draw follows from it.
    """

    directory: Path
    config: Any
    seed: int
    mesh: Mesh
    model: LanguageModel
    tokenizer: Tokenizer

    def stage_directory(self, stage: str) -> Path:
        return self.directory / stage


def run_stage(
    work: Workspace, stage: str, settings: Mapping[str, Any], train: Callable[[Path], Any]
) -> dict[str, Any]:
    """Trains, exports and evaluates a stage, unless that has been done with these settings.

    Args:
      settings: JSON-able; all that the stage's result depends on.
      train: stage directory -> parameters.

    Returns:
      `{"wall_seconds", "metrics"}` as `report.json` has it.
    """
    directory = work.stage_directory(stage)
    done = directory / "result.json"
    settings = json.loads(json.dumps(settings))
    if done.exists():
        result = json.loads(done.read_text())
        if result["settings"] == settings:
            print(f"{stage}: complete, taken from {directory}", flush=True)
            return {name: result[name] for name in ("wall_seconds", "metrics")}
        raise ValueError(
            f"{directory} holds a {stage} stage of another config; give another --workdir, or "
            "remove that folder"
        )
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    params = train(directory)
    export_model(directory / "hf", work.model.config, params, work.tokenizer)
    metrics, graded = evaluate_params(work, params)
    lines = [json.dumps(g.record(), ensure_ascii=False) for g in graded]
    write_atomically(directory / "graded.jsonl", "\n".join(lines) + "\n")
    result = {"wall_seconds": time.monotonic() - start, "metrics": metrics}
    write_atomically(done, json.dumps({"settings": settings, **result}, indent=2))
    return result


def load_stage(work: Workspace, stage: str) -> Any:
    """Parameters that a complete stage has exported."""
    directory = work.stage_directory(stage) / "hf"
    if not directory.exists():
        raise FileNotFoundError(
            f"{directory} does not exist: run the stage {stage} first (--stages={stage})"
        )
    return load_params(directory, work.model.config, work.mesh)


def evaluation_problems(config: Any, seed: int) -> dict[str, tuple[Task, list[Problem]]]:
    """Held-out problems by domain; all there are where a domain has fewer than asked for."""
    chosen = {}
    for domain, spec in config.tasks.items():
        task = get_task(spec)
        count = None if domain == "knowledge" else config.problems
        chosen[domain] = (task, task.problems("test", count, seed))
    return chosen


def evaluate_params(
    work: Workspace, params: Any
) -> tuple[dict[str, dict[str, Any]], list[Graded]]:
    """Metrics on held-out problems, the same ones for every stage of a seed."""
    config = work.config.evaluation
    with jax.set_mesh(work.mesh):
        return evaluate(
            JaxGenerator(work.model, params, work.tokenizer, rows=config.rows),
            evaluation_problems(config, work.seed),
            get_template(work.config.template, work.tokenizer),
            num_samples=config.samples,
            max_new_tokens=config.max_new_tokens,
            sampling=SamplingParams(temperature=config.temperature),
            seed=work.seed,
        )


def pretrain(work: Workspace, texts: list[str], config: Any, directory: Path) -> Any:
    """A base model from scratch: next-token prediction on `texts`, once through."""
    source = PackedSource(
        encode_records([{"text": text} for text in texts], work.tokenizer),
        rows=config.rows,
        row_length=config.row_length,
        seed=work.seed,
        num_epochs=1,
    )
    num_steps = source.count_batches()
    optimizer = make_optimizer(config.optimizer.to_dict(), work.model.abstract_params, num_steps)
    state = create_state(work.model, optimizer, work.mesh, jax.random.key(work.seed))
    step = make_train_step(sft.make_loss(work.model), optimizer, work.mesh)
    settings = {"pretrain": config.to_dict(), "seed": work.seed}
    with Checkpointer(directory / "checkpoints", config=settings) as checkpointer:
        result = run(
            state,
            step,
            source,
            num_steps=num_steps,
            title="pretrain",
            writer=MetricWriter(directory),
            checkpointer=checkpointer,
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
        )
    return _finished(result).params


def reinforce(
    work: Workspace,
    params: Any,
    problems: list[Problem],
    config: Any,
    directory: Path,
    *,
    evaluation: Callable[[Any], Mapping[str, float]] | None = None,
) -> Any:
    """RL with verifiable rewards from `params`, which it takes over.

    A run that its guard stops as collapsed goes back to the best checkpoint.

    Args:
      evaluation: params -> metrics, called every `config.evaluate_every` steps.
    """
    variant = get_variant(
        config.variant,
        **{name: config[name].to_dict() for name in ("advantage", "loss") if name in config},
    )
    optimizer = make_optimizer(config.optimizer.to_dict(), work.model.abstract_params, config.steps)
    reference = jax.tree.map(lambda x: x.copy(), params) if variant.loss.beta > 0 else None
    state = state_from_params(work.model, params, optimizer, work.mesh)
    step = make_train_step(
        make_policy_loss(work.model, variant.loss, config.temperature),
        optimizer,
        work.mesh,
        accumulate=config.microbatches,
        normalize_weights=False,
        finalize=mean_metrics,
    )
    template = get_template(work.config.template, work.tokenizer)
    rewards = config.rewards if isinstance(config.rewards, str) else config.rewards.to_dict()
    settings = {"rl": config.to_dict(), "seed": work.seed}
    with (
        RewardSet(rewards, num_workers=config.reward_workers) as reward_set,
        Checkpointer(
            directory / "checkpoints", config=settings, best_metric="reward"
        ) as checkpointer,
    ):
        reward_set.check(template(problems[0].question), problems[0])
        source = PolicySource(
            work.model,
            RolloutSampler(
                JaxGenerator(work.model, state.params, work.tokenizer, rows=config.sampler_rows),
                template,
                reward_set,
                group=config.group,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.temperature),
            ),
            ProblemStream(problems, work.seed),
            variant,
            LearnerConfig(
                prompts=config.prompts,
                rows=config.rows,
                row_length=config.row_length,
                microbatches=config.microbatches,
                minibatches=config.minibatches,
                epochs=config.epochs,
                recompute_old=config.recompute_old,
            ),
            seed=work.seed,
            reference_params=reference,
        )
        writer = MetricWriter(directory)
        hooks = [
            Hook(config.sample_every, lambda step, state: _write_samples(writer, step, source.last))
        ]
        if evaluation is not None:
            hooks.append(Hook(config.evaluate_every, lambda step, state: evaluation(state.params)))
        result = run(
            state,
            step,
            source,
            num_steps=config.steps,
            title=directory.name,
            writer=writer,
            checkpointer=checkpointer,
            checkpoint_every=config.checkpoint_every,
            hooks=hooks,
            guards=[CollapseGuard()],
            log_every=1,
            show=("reward", "accuracy", "format", "response_tokens"),
        )
        if result.stop_reason and not result.interrupted:
            best = checkpointer.best_step()
            print(f"{directory.name}: {result.stop_reason}; best checkpoint: step {best}")
            if best is not None:
                return checkpointer.restore(result.state, best)[0].params
    return _finished(result).params


def _finished(result):
    if result.interrupted:
        raise Interrupted(result.stop_reason)
    return result.state


def _write_samples(writer: MetricWriter, step: int, rollouts: Rollouts) -> None:
    """The first completion of the first few prompts, with what it earned and why."""
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
