"""Sections that several recipes share: mesh, optimizer, packed rows, sampling, evaluation."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from launch.schema.fields import Recipe, Section, Setting, given, sections
from launch.schema.loading import ConfigError

REMAT = ("none", "full", "dots")
DTYPES = ("auto", "float32", "bfloat16")

Mesh = Annotated[
    Mapping[str, int],
    Setting(
        "devices along each mesh axis; one axis may be -1, all that are left",
        unit="devices",
        least=1,
        also=(-1,),
        keys="models.sharding:MESH_AXES",
    ),
]
Sharding = Annotated[
    Mapping[str, Any],
    Setting(
        "entries of the sharding table that differ: logical axis to mesh axis, several, or None",
        keys="models.sharding:LOGICAL_RULES",
        empty=True,
    ),
]
Seed = Annotated[int, Setting("seed that every random draw is derived from", least=0)]
Template = Annotated[
    str,
    Setting(
        "prompt template; variables of the tokenizer's chat template follow a question mark, as in"
        " chat?enable_thinking=false",
        choices="reasoning.prompts:TEMPLATES",
        options=True,
    ),
]
Counts = Annotated[
    Mapping[str, int],
    Setting("training problems by task; -1 takes all", unit="problems", least=1, also=(-1,)),
]
MaxNewTokens = Annotated[int, Setting("longest response", unit="tokens", least=1)]
SamplerRows = Annotated[int, Setting("sequences sampled in parallel", unit="sequences", least=1)]
Samples = Annotated[int, Setting("responses sampled for each problem", least=1)]
Temperature = Annotated[float, Setting("sampling temperature; 0 is greedy", least=0)]
Rows = Annotated[int, Setting("rows in a batch", unit="rows", least=1)]
RowLength = Annotated[int, Setting("tokens in a row", unit="tokens", least=2)]
Microbatches = Annotated[int, Setting("microbatches that a batch is split into", least=1)]
CheckpointEvery = Annotated[int, Setting("steps between checkpoints", unit="steps", least=1)]
CheckpointMinutes = Annotated[
    float | None,
    Setting(
        "also save so many minutes after the last checkpoint, with the next line of metrics.jsonl;"
        " None saves by steps alone",
        unit="minutes",
        above=0,
    ),
]
LogEvery = Annotated[int, Setting("steps between lines of metrics.jsonl", unit="steps", least=1)]
Ngram = Annotated[
    int | None,
    Setting(
        "drop data that share this many consecutive words with the evaluation; None keeps all",
        unit="words",
        least=1,
    ),
]
TooLong = Annotated[
    str, Setting("what to do with examples longer than a row", choices="train.source:TOO_LONG")
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Section):
    """An optimizer and its schedule; None takes the default of `train/optimizer.py`."""

    name: Annotated[str, Setting("optimizer", choices="train.optimizer:DIRECTIONS")]
    learning_rate: Annotated[float, Setting("peak learning rate", above=0)]
    schedule: Annotated[
        str,
        Setting("learning-rate schedule after the warm-up", choices="train.optimizer:SCHEDULES"),
    ] = "constant"
    warmup_steps: Annotated[int, Setting("warm-up steps", unit="steps", least=0)] = 0
    decay_steps: Annotated[
        int | None, Setting("decay steps of the wsd schedule", unit="steps", least=1)
    ] = None
    final_fraction: Annotated[
        float | None, Setting("final learning rate as a share of the peak", least=0, most=1)
    ] = None
    clip_norm: Annotated[
        float | None,
        Setting("clip the global gradient norm at this value; None does not clip", above=0),
    ] = 1.0
    weight_decay: Annotated[float, Setting("decoupled weight decay", least=0)] = 0.0
    b1: Annotated[
        float | None, Setting("decay of the first moment (adamw, lion, muon)", least=0, below=1)
    ] = None
    b2: Annotated[
        float | None, Setting("decay of the second moment (adamw, lion, muon)", least=0, below=1)
    ] = None
    eps: Annotated[float | None, Setting("added to the denominator (adamw)", above=0)] = None
    mu_dtype: Annotated[
        str | None, Setting("dtype of the first moment (adamw)", choices=("float32", "bfloat16"))
    ] = None
    decay_rate: Annotated[float | None, Setting("decay rate (adafactor)", above=0, most=1)] = None
    clip_threshold: Annotated[float | None, Setting("clipping threshold (adafactor)", above=0)] = (
        None
    )
    min_factored: Annotated[
        int | None, Setting("smallest factored dimension (adafactor)", least=1)
    ] = None
    momentum: Annotated[float | None, Setting("momentum (sgd, muon)", least=0, below=1)] = None
    rms: Annotated[
        float | None, Setting("root mean square of a matrix's update (muon)", above=0)
    ] = None
    nesterov: Annotated[bool | None, Setting("Nesterov momentum (sgd)")] = None
    lr_rules: Annotated[
        tuple[Any, ...] | None,
        Setting("(path regex, multiplier of the learning rate) pairs; 0 freezes"),
    ] = None
    decay_rules: Annotated[
        tuple[Any, ...] | None, Setting("(path regex, multiplier of the weight decay) pairs")
    ] = None

    def settings(self) -> dict[str, Any]:
        """Returns the settings for `train.optimizer.make_optimizer`."""
        return given(self) | {"clip_norm": self.clip_norm}

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        from train.optimizer import DIRECTIONS, OptimizerConfig

        for rules in ("lr_rules", "decay_rules"):
            for rule in getattr(self, rules) or ():
                if not (
                    isinstance(rule, list | tuple)
                    and [type(each) for each in rule] in ([str, float], [str, int])
                ):
                    yield rules, "must be pairs of a regular expression and a number"
                    return
        try:
            OptimizerConfig.from_mapping(self.settings())
        except ValueError as error:
            known = ", ".join(DIRECTIONS)
            yield "name", f"{error} (optimizers are {known}; leave out what another one reads)"

    def check_steps(self, steps: int) -> Iterator[tuple[str, str]]:
        """Yields a fault if the schedule does not fit in a run of `steps` steps."""
        decay = self.decay_steps or (0 if self.schedule == "constant" else 1)
        if self.warmup_steps + decay > steps:
            yield (
                "optimizer.warmup_steps",
                f"warm-up and decay do not fit in {steps} steps: shorten them, or train longer",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Section):
    """Low-rank adapters; see `models/lora.py`."""

    rank: Annotated[int, Setting("rank of the adapters; 0 trains all parameters", least=0)] = 0
    alpha: Annotated[float, Setting("the adapter is scaled by alpha / rank", above=0)] = 32.0
    targets: Annotated[str, Setting("regular expression for the paths of adapted kernels")] = (
        r"(dense_)?layers/(attention|mlp|mlp/shared)/\w+/kernel"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        try:
            re.compile(self.targets)
        except re.error as error:
            yield "targets", f"is no regular expression: {error}"

    def check_optimizer(self, optimizer: Optimizer) -> Iterator[tuple[str, str]]:
        """Yields a fault if the optimizer has rules of its own beside the adapters'."""
        if self.rank and optimizer.lr_rules is not None:
            yield (
                "optimizer.lr_rules",
                f"must be None with lora.rank={self.rank}, which trains the adapters alone",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed(Section):
    """Training on examples that are packed into rows."""

    rows: Rows
    row_length: RowLength
    optimizer: Optimizer
    log_every: LogEvery
    checkpoint_every: CheckpointEvery
    checkpoint_every_minutes: CheckpointMinutes = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining(Packed):
    """Next-token prediction from scratch."""

    documents: Annotated[int, Setting("documents in the corpus", unit="documents", least=1)]
    corpus: Annotated[
        str,
        Setting("what the documents are about", choices="reasoning.tiny_world.corpora:CORPORA"),
    ] = "web"
    varied: Annotated[
        float,
        Setting(
            "share of tagged solutions whose chain is empty, stopped early, or checked at its end",
            least=0,
            most=1,
        ),
    ] = 0.0

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        if self.varied and self.corpus != "web":
            yield "varied", f"must be 0 with corpus={self.corpus}, which has no such documents"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning(Packed):
    """Training on samples in several passes."""

    epochs: Annotated[int, Setting("passes over the data", unit="passes", least=1)]
    microbatches: Microbatches = 1
    too_long: TooLong = "error"

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        if self.rows % self.microbatches:
            yield "rows", f"must divide into microbatches={self.microbatches}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Section):
    """How to draw responses for training."""

    samples: Samples
    max_new_tokens: MaxNewTokens
    temperature: Temperature
    sampler_rows: SamplerRows
    part: Annotated[
        int | None,
        Setting(
            "prompts whose responses go to disk together, so that an interruption loses one part;"
            " None is all",
            unit="prompts",
            least=1,
        ),
    ] = None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from differing_samples(self.samples, self.temperature)


def differing_samples(samples: int, temperature: float) -> Iterator[tuple[str, str]]:
    """Yields a fault if several samples of a problem are greedy, and so the same."""
    if samples > 1 and temperature == 0:
        yield (
            "temperature",
            f"{samples} samples would be equal: set it above 0, or samples to 1",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Votes(Section):
    """Majority votes of many samples, beside the evaluation."""

    stages: Annotated[tuple[str, ...], Setting("stages after which votes are taken", empty=True)]
    domains: Annotated[tuple[str, ...], Setting("domains of `tasks` that are voted on", empty=True)]
    samples: Annotated[int, Setting("votes for each problem", unit="votes", least=2)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Section):
    """The evaluation of a model before and after training."""

    tasks: Annotated[
        Mapping[str, str], Setting("task of each domain; '' skips the domain", empty=True)
    ]
    problems: Annotated[
        int | None,
        Setting("held-out problems per domain; None is all", unit="problems", least=1),
    ]
    samples: Samples
    max_new_tokens: MaxNewTokens
    temperature: Temperature
    top_p: Annotated[
        float, Setting("nucleus (top-p) sampling; 1 samples from all tokens", above=0, most=1)
    ] = 1.0
    rows: SamplerRows
    votes: Votes | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from differing_samples(self.samples, self.temperature)


def check_task(field: str, spec: str) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with the name of a task, without reading its data."""
    from reasoning.tasks import get_task

    try:
        get_task(spec)
    except (ValueError, TypeError) as error:
        yield field, str(error)


def check_tasks(field: str, specs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with the names of tasks, the keys of a mapping."""
    for spec in specs:
        for _, fault in check_task(field, spec):
            yield field, fault


def check_mesh(mesh: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yields a fault if several axes shall take the devices that are left."""
    if sum(size == -1 for size in mesh.values()) > 1:
        yield "mesh", "at most one axis may be -1"


def check_checkpoint(field: str, source: str) -> Iterator[tuple[str, str]]:
    """Yields a fault if a checkpoint's path is a file that is no checkpoint."""
    if not source.endswith(".gguf") and ":" not in source and Path(source).expanduser().is_file():
        yield field, "is a file: give the folder that holds config.json and the weights"


def check_rows(config: Section, shards: int, columns: int = 1) -> None:
    """Raises `ConfigError` if the rows of a batch do not divide over the devices.

    Args:
      config: the config; all its sections are checked.
      shards: over how many devices a batch is split; see `models.sharding.batch_shards`.
      columns: over how many devices a row is split; see `models.sharding.length_shards`.
    """
    mistakes = []
    for path, section in sections(config):
        rows = getattr(section, "rows", None)
        if rows is None or not hasattr(section, "row_length"):
            continue
        parts = shards * getattr(section, "microbatches", 1)
        if rows % parts:
            mistakes.append(
                f"{path}.rows={rows}: must be a multiple of {parts}, the data shards of the mesh"
                " times the microbatches"
            )
        if section.row_length % columns:
            mistakes.append(
                f"{path}.row_length={section.row_length}: must be a multiple of {columns}, the mesh"
                " axis context"
            )
    if mistakes:
        raise ConfigError(mistakes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Recipe):
    """The fields that every recipe with a training has."""

    seed: Seed
    mesh: Mesh
    sharding: Sharding
    template: Template
    evaluation: Evaluation

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from check_mesh(self.mesh)
        own = getattr(self, "task", "")
        if own:
            yield from check_task("task", own)
        for domain, spec in self.evaluation.tasks.items():
            if spec and spec != own:
                yield from check_task(f"evaluation.tasks.{domain}", spec)


Dtype = Annotated[
    str, Setting("dtype of the computation; auto is float32 on CPU, else bfloat16", choices=DTYPES)
]
ExportDtype = Annotated[
    str,
    Setting(
        "dtype of exported weights; auto is that of the original checkpoint",
        choices=(*DTYPES, "float16"),
    ),
]
Remat = Annotated[str, Setting("which activations the backward pass recomputes", choices=REMAT)]
