"""The schema of the R1 recipe in any world; each world's schema adds where its base is from."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from launch.schema.distill import RecipeDistilling
from launch.schema.fields import Section, Setting
from launch.schema.rl import RecipeRl
from launch.schema.sections import (
    Counts,
    FineTuning,
    MaxNewTokens,
    Run,
    SamplerRows,
    Sampling,
    Temperature,
    check_tasks,
)

# Stages whose models can be the reasoner; "base" searches with a checkpoint as it is.
REASONERS = ("base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1")

PerProblem = Annotated[int, Setting("most responses kept per problem", unit="responses", least=1)]


Ngram = Annotated[
    int,
    Setting(
        "drop samples that share this many consecutive words with the evaluation",
        unit="words",
        least=1,
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedSampling(Sampling):
    """Problems that are asked, and what is kept of the responses."""

    problems: Counts
    per_problem: PerProblem

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        yield from check_tasks("problems", self.problems)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdStart(AskedSampling):
    """SFT of the base model on chains that R1-Zero wrote."""

    shots: Annotated[int, Setting("worked examples in the prompt", least=0)]
    ngram: Ngram
    sft: FineTuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class RejectionSft(Section):
    """Rejection sampling, and SFT of the base model on what is kept."""

    reasoning: AskedSampling
    general: AskedSampling | None
    proportion: Annotated[
        float | None,
        Setting(
            "reasoning samples kept for each general one; all are kept with None, or where there"
            " are no general ones",
            above=0,
        ),
    ] = 3
    ngram: Ngram
    sft: FineTuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceReward(Section):
    """A reward model's part in the reward."""

    weight: Annotated[float, Setting("weight of the reward")]
    tasks: Annotated[str | None, Setting("tasks that it rewards, joined by +")] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1(Section):
    """RL for all scenarios: rules, and reward models of helpfulness and harmlessness.

    A reward model that is None is not trained. Without any, rules alone reward.
    """

    harmless_problems: Annotated[
        Mapping[str, int],
        Setting("training problems by task", unit="problems", least=1, empty=True),
    ]
    sampling: Sampling | None
    reward_model: FineTuning | None
    helpful: PreferenceReward | None
    harmless: PreferenceReward | None
    rl: RecipeRl

    @property
    def prefers(self) -> bool:
        """Whether there are reward models beside the rules."""
        return self.helpful is not None or self.harmless is not None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from check_tasks("harmless_problems", self.harmless_problems)
        if not self.prefers:
            return
        if isinstance(self.rl.rewards, str):
            yield "rl.rewards", "must be a mapping: the reward models are added to it"
        for name in ("sampling", "reward_model"):
            if getattr(self, name) is None:
                yield name, "is None, but the reward models need it"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verifiers(FineTuning):
    """Verifiers from the policy's labelled solutions; see `launch/jobs/verifier_training.py`."""

    problems: Counts
    solutions: Annotated[int, Setting("solutions sampled for each problem", least=1)]
    completions: Annotated[int, Setting("completions sampled from each step", least=1)]
    max_new_tokens: MaxNewTokens
    temperature: Annotated[
        float, Setting("sampling temperature of solutions, which must differ", above=0)
    ]
    completion_temperature: Annotated[
        float | None,
        Setting("sampling temperature of completions; None takes that of solutions", least=0),
    ]
    delimiter: Annotated[
        str,
        Setting("text that ends a step; sentences: lines and sentences of free text", empty=True),
    ]
    chunk: Annotated[int, Setting("problems labelled in one batch", unit="problems", least=1)]
    sampler_rows: SamplerRows
    outcome_at: Annotated[
        str,
        Setting(
            "tokens at which the outcome verifier learns",
            choices="train.objectives.process_reward:PLACES",
        ),
    ]
    language_share: Annotated[
        float,
        Setting(
            "weight of an extra loss for predicting right solutions; 0 switches it off", least=0
        ),
    ]
    bench_problems: Annotated[
        int,
        Setting("problems per task of the benchmark with planted errors", unit="problems", least=2),
    ]

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        if not self.delimiter:
            yield "delimiter", "must not be empty"
        yield from check_tasks("problems", self.problems)
        if self.completion_temperature == 0 and self.completions > 1:
            yield (
                "completion_temperature",
                f"{self.completions} completions would be equal: set it above 0",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Section):
    """The comparison of search methods."""

    task: Annotated[str, Setting("task whose problems are searched")]
    problems: Annotated[int, Setting("held-out problems to measure on", unit="problems", least=2)]
    calibration: Annotated[
        int,
        Setting(
            "training problems that the adaptive method is fitted on", unit="problems", least=2
        ),
    ]
    budgets: Annotated[tuple[int, ...], Setting("budgets to compare", unit="responses", least=1)]
    tree_arms: Annotated[
        tuple[int, ...], Setting("budgets at which tree searches are calibrated", least=1)
    ]
    pilots: Annotated[int, Setting("samples used to estimate a problem's difficulty", least=1)]
    aggregation: Annotated[
        str,
        Setting(
            "how step scores are combined into one", choices="reasoning.verifiers:AGGREGATIONS"
        ),
    ]
    wait: Annotated[str, Setting("text that budget forcing continues with")]
    shots: Annotated[int, Setting("worked examples in few-shot prompts; 0 for none", least=0)]
    max_new_tokens: MaxNewTokens
    step_tokens: Annotated[int, Setting("longest step", unit="tokens", least=1)]
    typical_tokens: Annotated[int, Setting("expected length of a response", unit="tokens", least=1)]
    temperature: Temperature
    rows: SamplerRows

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        for _, fault in check_tasks("task", {self.task: 1}):
            yield "task", fault
        if 1 not in self.budgets:
            yield "budgets", "1 must be among them"
        if unknown := [arm for arm in self.tree_arms if arm not in self.budgets]:
            yield "tree_arms", f"{unknown[0]} is not among the budgets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeConfig(Run):
    """A config of `launch.run_r1` and `launch.run_search`.

    A recipe need not have the stages after `r1`: their sections are None then.

    Attributes:
      world: the module of the world that the stages run in; see `launch.recipe.world`.
    """

    entry_point = "launch.run_r1"
    world: ClassVar[str]

    reasoner: Annotated[
        str,
        Setting(
            "stage whose model the verifiers judge, the search asks and the student learns from",
            choices=REASONERS,
        ),
    ] = "r1_zero"
    r1_zero: RecipeRl
    cold_start: ColdStart
    reasoning_rl: RecipeRl
    rejection_sft: RejectionSft
    r1: R1
    verifiers: Verifiers | None = None
    search: Search | None = None
    distill: RecipeDistilling | None = None

    def lengths(self) -> dict[str, int]:
        """Returns the longest response of each section that samples."""
        sections = {
            "evaluation": self.evaluation, "r1_zero": self.r1_zero, "cold_start": self.cold_start,
            "reasoning_rl": self.reasoning_rl, "rejection_sft.reasoning":
            self.rejection_sft.reasoning, "rejection_sft.general": self.rejection_sft.general,
            "r1.sampling": self.r1.sampling, "r1.rl": self.r1.rl, "verifiers": self.verifiers,
            "search": self.search, "distill.data": self.distill and self.distill.data,
        }  # fmt: skip
        return {name: each.max_new_tokens for name, each in sections.items() if each is not None}
