"""The schema of distillation: `launch.run_distill`, and the stage `distill` of the tiny recipe."""

import dataclasses
import string
from collections.abc import Iterator, Mapping
from typing import Annotated

from launch.schema.fields import Section, Setting
from launch.schema.model import Model
from launch.schema.rl import Reinforcement
from launch.schema.sections import (
    CheckpointEvery,
    Counts,
    Dtype,
    ExportDtype,
    Lora,
    MaxNewTokens,
    Microbatches,
    Ngram,
    Optimizer,
    Packed,
    Pretraining,
    Remat,
    RowLength,
    Rows,
    Run,
    SamplerRows,
    Samples,
    Temperature,
    TooLong,
    check_checkpoint,
    check_tasks,
    differing_samples,
)

METHODS = ("sequence", "logit", "on_policy")
ARMS = ("rl_only", *METHODS, "distill_then_rl")

Beta = Annotated[float, Setting("0 is forward KL, 1 reverse KL", least=0, most=1)]
DivergenceTemperature = Annotated[
    float, Setting("temperature of the compared distributions", above=0)
]
Share = Annotated[float, Setting("share of the method's own training steps", above=0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherResponses(Section):
    """How to ask the teacher, and which form its responses must have."""

    responses: Annotated[
        str,
        Setting(
            "JSONL of responses, or a mixture such as A.jsonl=3,B.jsonl=1; '' asks the teacher",
            empty=True,
        ),
    ]
    ngram: Ngram
    samples: Samples
    form: Annotated[
        str,
        Setting(
            "required form of a response",
            choices="reasoning.training_data.teacher_data:FORMS",
        ),
    ]
    max_new_tokens: MaxNewTokens
    temperature: Temperature
    sampler_rows: SamplerRows

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from differing_samples(self.samples, self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnResponses(Packed):
    """SFT on what the teacher wrote."""

    epochs: Annotated[int, Setting("passes over the data", unit="passes", least=1)]
    microbatches: Microbatches
    too_long: TooLong
    curriculum: Annotated[
        int,
        Setting(
            "curriculum stages per epoch, from short to long examples; 1 shuffles all", least=1
        ),
    ]

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        if self.rows % self.microbatches:
            yield "rows", f"must divide into microbatches={self.microbatches}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logit(OnResponses):
    """The teacher's distributions at the tokens of what it wrote."""

    beta: Beta
    temperature: DivergenceTemperature
    top_k: Annotated[
        int | None,
        Setting("store only this many likeliest tokens; None stores all", unit="tokens", least=1),
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicy(Section):
    """The teacher's distributions at the tokens of what the student wrote."""

    beta: Beta
    temperature: DivergenceTemperature
    on_policy_share: Annotated[
        float,
        Setting("share of on-policy batches; the others hold teacher responses", least=0, most=1),
    ]
    warm_start: Annotated[
        float,
        Setting("share of sequence's own training that comes first; 0 starts cold", least=0),
    ] = 0.0
    steps: Annotated[int, Setting("updates", unit="steps", least=1)]
    prompts: Annotated[int, Setting("problems in a batch", unit="problems", least=1)]
    group: Annotated[int, Setting("completions per problem", least=1)]
    max_new_tokens: MaxNewTokens
    sampling_temperature: Temperature
    sampler_rows: SamplerRows
    rows: Rows
    row_length: RowLength
    microbatches: Microbatches
    too_long: TooLong
    optimizer: Optimizer
    checkpoint_every: CheckpointEvery

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        if self.rows % self.microbatches:
            yield "rows", f"must divide into microbatches={self.microbatches}"
        if self.row_length <= self.max_new_tokens:
            yield (
                "row_length",
                f"has no room for a prompt and max_new_tokens={self.max_new_tokens}",
            )
        if self.group > 1 and self.sampling_temperature == 0:
            yield "sampling_temperature", f"{self.group} completions would be equal: set it above 0"
        yield from self.optimizer.check_steps(self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillThenRl(Section):
    """A method with a share of its training, then RL with a share of RL's own."""

    method: Annotated[str, Setting("the first method", choices=METHODS)]
    share: Share
    rl_share: Annotated[float, Setting("share of the RL steps that follow", above=0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base(Section):
    """A student from scratch; without `pretrain` it starts with random weights."""

    model: Model
    pretrain: Pretraining | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distilling(Section):
    """The arms of a distillation and their shared settings; see `launch.jobs.distillation.arms`."""

    methods: Annotated[tuple[str, ...], Setting("methods to run", choices=ARMS)]
    data: TeacherResponses
    sequence: OnResponses
    logit: Logit
    on_policy: OnPolicy
    rl_only: Reinforcement
    distill_then_rl: DistillThenRl
    lora: Lora

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        for i, method in enumerate(self.methods):
            if method in self.methods[:i]:
                yield "methods", f"names {method} twice"
        if self.rl_only.lora.rank:
            yield "rl_only.lora.rank", "must be 0: lora.rank is that of every arm"

    @property
    def trained(self) -> list[str]:
        """The sections that say how the arms train."""
        return [part for arm in self.methods for part in self.parts(arm)]

    def parts(self, arm: str) -> tuple[str, ...]:
        """Returns the names of the sections that say how an arm trains."""
        if arm == "distill_then_rl":
            return (*self.parts(self.distill_then_rl.method), "rl_only")
        if arm == "on_policy" and self.on_policy.warm_start:
            return ("on_policy", "sequence")
        return (arm,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeDistilling(Distilling):
    """Distillation as a stage of a recipe, with a student from scratch."""

    problems: Counts
    base: Base

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        yield from check_tasks("problems", self.problems)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(Distilling, Run):
    """A config of `launch.run_distill`."""

    entry_point = "launch.run_distill"
    example = "configs/distill.py"

    teacher: Annotated[
        str,
        Setting(
            "checkpoint; {seed} stands for the run's seed; '' uses data.responses only", empty=True
        ),
    ]
    student: Annotated[
        str, Setting("checkpoint; '' trains a student from scratch (see base)", empty=True)
    ]
    base: Base | None = None
    dtype: Dtype
    export_dtype: ExportDtype = "auto"
    remat: Remat
    task: Annotated[str, Setting("training problems", empty=True)]
    num_problems: Annotated[
        int | None,
        Setting("problems of task to draw at random; None takes all", unit="problems", least=1),
    ]
    problems: Annotated[
        Mapping[str, int],
        Setting(
            "instead of task: several tasks, with the number of problems of each",
            unit="problems",
            least=1,
            empty=True,
        ),
    ]

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        asked = {"on_policy", "rl_only"} & set(self.trained) or not self.data.responses
        if asked and not self.task and not self.problems:
            yield "task", "must not be empty: name one, or several in problems"
        yield from check_tasks("problems", self.problems)
        for name in ("teacher", "student"):
            yield from _check_source(name, getattr(self, name))
        if not self.student and self.base is None:
            yield "student", "there is no student: give a checkpoint by --config.student=DIR"
        if not self.teacher:
            if not self.student:
                yield (
                    "teacher",
                    "a student made from scratch has its teacher's tokenizer: set teacher",
                )
            if not self.data.responses:
                yield "teacher", "there is no teacher: give a checkpoint, or data.responses"
            for method in sorted(set(self.trained) & {"logit", "on_policy"}):
                yield (
                    "methods",
                    f"method '{method}' needs a teacher's checkpoint, not its text alone",
                )


def _check_source(field: str, source: str) -> Iterator[tuple[str, str]]:
    """Yields a fault if a checkpoint's name has braces other than {seed}."""
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(source) if name is not None}
    except ValueError:
        names = {"?"}
    if names - {"seed"}:
        yield field, "has braces: only {seed} may stand in them; write others as {{ and }}"
    else:
        yield from check_checkpoint(field, source)
