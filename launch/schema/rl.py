"""The schema of RL with verifiable rewards: `launch.run_rl`, and the RL stages of other recipes."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from launch.schema.fields import Section, Setting, given
from launch.schema.sections import (
    CheckpointEvery,
    CheckpointMinutes,
    Counts,
    Dtype,
    Evaluation,
    ExportDtype,
    Lora,
    MaxNewTokens,
    Microbatches,
    Optimizer,
    Remat,
    RowLength,
    Rows,
    Run,
    SamplerRows,
    check_checkpoint,
    check_tasks,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advantage(Section):
    """How rewards become advantages; None takes the variant's value. See `rl/advantages.py`."""

    estimator: Annotated[
        str | None,
        Setting("baseline that a reward is compared with", choices="rl.advantages:ESTIMATORS"),
    ] = None
    unbiased_std: Annotated[bool | None, Setting("divide the variance by group - 1 (grpo)")] = None
    std_epsilon: Annotated[
        float | None, Setting("added to the standard deviation (grpo)", least=0)
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Section):
    """The policy loss; None takes the variant's value. See `rl/losses.py`."""

    objective: Annotated[
        str | None, Setting("clipped objective", choices="rl.losses:OBJECTIVES")
    ] = None
    ratio_level: Annotated[
        str | None,
        Setting(
            "whether the policy ratio is per token or per sequence",
            choices="rl.losses:RATIO_LEVELS",
        ),
    ] = None
    clip_low: Annotated[float | None, Setting("lower clipping range", least=0)] = None
    clip_high: Annotated[float | None, Setting("upper clipping range", least=0)] = None
    dual_clip: Annotated[
        float | None, Setting("bound on the loss where the advantage is negative", above=1)
    ] = None
    beta: Annotated[float | None, Setting("KL coefficient; 0 needs no reference", least=0)] = None
    kl_estimator: Annotated[
        str | None, Setting("estimator of the KL term", choices="rl.kl:KL_ESTIMATORS")
    ] = None
    kl_in: Annotated[
        str | None,
        Setting("whether the KL term is in the loss or in the reward", choices=("loss", "reward")),
    ] = None
    tis_cap: Annotated[
        float | None,
        Setting("cap of truncated importance sampling; None does not correct", above=0),
    ] = None
    mask_low: Annotated[
        float | None, Setting("smallest importance weight that counts", least=0, below=1)
    ] = None
    mask_high: Annotated[
        float | None, Setting("largest importance weight that counts", above=1)
    ] = None
    correction_level: Annotated[
        str | None, Setting("level of the importance weight", choices="rl.losses:RATIO_LEVELS")
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutServer(Section):
    """A server that samples; see `reasoning/server_client/rollout_server.py`."""

    url: Annotated[
        str,
        Setting(
            "server that samples the rollouts, such as http://localhost:8000; '' samples here",
            empty=True,
        ),
    ] = ""
    api_key_env: Annotated[
        str, Setting("environment variable with the server's key; '' sends none", empty=True)
    ] = ""
    timeout_s: Annotated[
        float, Setting("time limit of a sample, and of new weights", unit="seconds", above=0)
    ] = 600.0
    concurrency: Annotated[int, Setting("samples that are drawn at a time", least=1)] = 64

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        from reasoning.server_client.http_client import check_url

        if self.url:
            try:
                check_url(self.url, "the address")
            except ValueError as error:
                yield "url", str(error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforcement(Section):
    """One RL training, as `launch.jobs.training.reinforcement.plan_reinforce` reads it."""

    variant: Annotated[str, Setting("algorithm", choices="rl.variants:VARIANTS")]
    advantage: Advantage = Advantage()
    aggregation: Annotated[
        str | None,
        Setting(
            "how token losses are averaged; None takes the variant's",
            choices="rl.advantages:AGGREGATIONS",
        ),
    ] = None
    loss: Loss = Loss()
    dynamic_sampling: Annotated[
        bool | None,
        Setting("resample until every group has different rewards; None takes the variant's"),
    ] = None
    max_resamples: Annotated[
        int,
        Setting(
            "most rollout batches that dynamic sampling draws again in a step",
            unit="rollout batches",
            least=0,
        ),
    ] = 4
    adaptive_sampling: Annotated[
        str,
        Setting(
            "asks less where answers were all right or all wrong: by problem, or by task",
            choices=("off", "problem", "task"),
        ),
    ] = "off"
    reference_every: Annotated[
        int | None,
        Setting(
            "steps between renewals of the KL reference; None never renews it",
            unit="steps",
            least=1,
        ),
    ] = None
    staleness: Annotated[
        int,
        Setting(
            "1 samples during the update, with weights one iteration old",
            unit="iterations",
            least=0,
            most=1,
        ),
    ] = 0
    sampler_weights: Annotated[
        str,
        Setting(
            "weights that sample the rollouts: the model's own, or int8 kernels",
            choices=("exact", "int8"),
        ),
    ] = "exact"
    sampler_cache: Annotated[
        str,
        Setting(
            "keys and values that the sampler keeps: in the dtype of the model, or int8",
            choices=("exact", "int8"),
        ),
    ] = "exact"
    rollout_server: RolloutServer = RolloutServer()
    diagnosis: Annotated[
        str,
        Setting(
            "what a run does when it sees why it does not learn; stop: end if it cannot recover",
            choices=("warn", "stop"),
        ),
    ] = "warn"
    rewards: Annotated[
        str | Mapping[str, Any], Setting("rewards with weights and options; see rl/rewards/")
    ]
    reward_workers: Annotated[
        int, Setting("processes that compute rewards", unit="processes", least=1)
    ]
    reward_timeout_s: Annotated[
        float, Setting("time limit of one reward", unit="seconds", above=0)
    ] = 5.0
    reward_memory_mb: Annotated[
        int, Setting("memory limit of a reward process", unit="MiB", least=64)
    ] = 1024
    prompts: Annotated[int, Setting("problems in a rollout batch", unit="problems", least=1)]
    group: Annotated[
        int, Setting("completions per problem, which are compared with each other", least=2)
    ]
    max_new_tokens: MaxNewTokens
    temperature: Annotated[float, Setting("sampling temperature; completions must differ", above=0)]
    sampler_rows: SamplerRows
    minibatches: Annotated[int, Setting("updates per pass over a rollout batch", least=1)]
    epochs: Annotated[int, Setting("passes over a rollout batch", least=1)]
    recompute_old: Annotated[
        bool, Setting("recompute old log-probs with the trainer before the first update")
    ]
    microbatches: Microbatches
    rows: Rows
    row_length: RowLength
    share_prompts: Annotated[
        bool,
        Setting(
            "completions in one row share a copy of their prompt, so rows should have room for"
            " several; not on TPUs"
        ),
    ] = False
    steps: Annotated[
        int | None,
        Setting(
            "updates; None derives them from data_epochs and the problems", unit="steps", least=1
        ),
    ] = None
    data_epochs: Annotated[
        float | None,
        Setting("passes over the training problems if steps is None", unit="passes", above=0),
    ] = None
    optimizer: Optimizer
    lora: Lora = Lora()
    sample_every: Annotated[
        int, Setting("steps between entries of samples.jsonl", unit="steps", least=1)
    ]
    checkpoint_every: CheckpointEvery
    checkpoint_every_minutes: CheckpointMinutes = None

    def overrides(self) -> dict[str, Any]:
        """Returns the differences from the variant, as arguments of `rl.variants.get_variant`."""
        return {
            "advantage": given(self.advantage),
            "aggregation": self.aggregation,
            "loss": given(self.loss),
            "dynamic_sampling": self.dynamic_sampling,
        }

    def num_steps(self, num_problems: int) -> int:
        """Returns the number of updates in a training on this many problems."""
        if self.steps is not None:
            return self.steps
        assert self.data_epochs is not None  # Checked below.
        batches = math.ceil(self.data_epochs * num_problems / self.prompts)
        return max(1, batches) * self.minibatches * self.epochs

    @property
    def prompt_room(self) -> int:
        """Tokens that a row must have for a prompt."""
        return 1

    @property
    def extendable(self) -> bool:
        """Whether the first steps of a longer training are those of this one."""
        return self.optimizer.schedule == "constant"

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        if self.prompts % self.minibatches:
            yield "prompts", f"must divide into minibatches={self.minibatches}"
        if self.rows % self.microbatches:
            yield "rows", f"must divide into microbatches={self.microbatches}"
        if self.row_length < self.prompt_room + self.max_new_tokens:
            yield (
                "row_length",
                f"has no room for a prompt of {self.prompt_room} tokens and"
                f" max_new_tokens={self.max_new_tokens}",
            )
        if self.steps is not None:
            yield from self.optimizer.check_steps(self.steps)
        elif self.data_epochs is None:
            yield "steps", "is None: set it, or set data_epochs"
        yield from self.lora.check_optimizer(self.optimizer)
        yield from self._check_variant()
        yield from check_rewards("rewards", self.rewards)

    def _check_variant(self) -> Iterator[tuple[str, str]]:
        from rl.variants import get_variant

        try:
            variant = get_variant(self.variant, **self.overrides())
        except ValueError as error:
            yield "loss", str(error)
            return
        if variant.loss.corrects and not self.recompute_old:
            yield (
                "recompute_old",
                f"must be true with tis_cap={variant.loss.tis_cap},"
                f" mask_low={variant.loss.mask_low}, mask_high={variant.loss.mask_high}",
            )
        samplers = {
            "staleness": self.staleness,
            "sampler_weights": self.sampler_weights == "int8",
            "sampler_cache": self.sampler_cache == "int8",
            "rollout_server.url": self.rollout_server.url,
        }
        for name in (name for name, differs in samplers.items() if differs):
            if variant.loss.corrects:
                break
            yield (
                name,
                "needs an importance correction: set loss.tis_cap=2 and recompute_old=true, or take"
                " variant=icepop",
            )
        for name in ("sampler_weights", "sampler_cache"):
            if self.rollout_server.url and getattr(self, name) != "exact":
                yield name, "must be exact where a server samples, which has settings of its own"
        if variant.loss.beta == 0 and self.reference_every is not None:
            yield (
                "reference_every",
                "there is no KL term whose reference could be renewed: set loss.beta above 0",
            )


def check_rewards(field: str, rewards: str | Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with the rewards of a config; a user's file is loaded."""
    from rl.rewards.table import parse_rewards

    try:
        parse_rewards(rewards)
    except ValueError as error:
        yield field, " ".join(str(error).split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeRl(Reinforcement):
    """RL as a stage of a recipe, which names the training problems by task."""

    problems: Counts

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        yield from check_tasks("problems", self.problems)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlEvaluation(Evaluation):
    """The evaluation, with a smaller one during training."""

    problems_during: Annotated[
        int, Setting("held-out problems per domain during training", unit="problems", least=1)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlConfig(Reinforcement, Run):
    """A config of `launch.run_rl`."""

    entry_point = "launch.run_rl"
    example = "configs/gsm8k_grpo.py"

    model: Annotated[str, Setting("checkpoint: a folder, hf://org/name, gguf:FILE or pip:PACKAGE")]
    dtype: Dtype
    export_dtype: ExportDtype = "auto"
    remat: Remat
    task: Annotated[str, Setting("where the problems come from, such as gsm8k or jsonl:FILE")]
    problems: Annotated[
        int | None,
        Setting("training problems to draw at random; None takes all", unit="problems", least=1),
    ]
    max_prompt_tokens: Annotated[
        int, Setting("drop problems with longer prompts", unit="tokens", least=1)
    ]
    evaluate_every: Annotated[
        int, Setting("steps between evaluations during training", unit="steps", least=1)
    ]
    evaluation: RlEvaluation

    @property
    def prompt_room(self) -> int:
        """Tokens that a row must have for a prompt."""
        return self.max_prompt_tokens

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        yield from check_checkpoint("model", self.model)
        needed = self.prompts * self.group // self.minibatches
        # Where prompts are shared, the rows needed depend on the longest prompt: see the plan.
        apart = not self.share_prompts
        if apart and self.rows < needed and self.rows % self.microbatches == 0:
            yield (
                "rows",
                f"may not hold the {needed} completions of a minibatch: set rows={needed} (rows"
                " that stay empty cost nothing)",
            )
