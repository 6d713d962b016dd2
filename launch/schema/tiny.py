"""The schema of the whole recipe: `launch.run_r1` and `launch.run_search`."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from launch.schema.distill import RecipeDistilling
from launch.schema.fields import Section, Setting
from launch.schema.model import Model
from launch.schema.rl import RecipeRl
from launch.schema.sections import (
    Counts,
    FineTuning,
    MaxNewTokens,
    Pretraining,
    Run,
    SamplerRows,
    Sampling,
    Temperature,
    check_tasks,
)

PerProblem = Annotated[int, Setting("most responses kept per problem", unit="responses", least=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTraining(Section):
    """The tokenizer, trained on the corpus."""

    vocab_size: Annotated[int, Setting("vocabulary size", unit="tokens", least=300)]
    documents: Annotated[int, Setting("corpus documents to train it on", unit="documents", least=1)]


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
    ngram: Annotated[
        int,
        Setting(
            "drop samples that share this many consecutive words with the evaluation",
            unit="words",
            least=1,
        ),
    ]
    sft: FineTuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class RejectionSft(Section):
    """Rejection sampling, and SFT of the base model on what is kept."""

    reasoning: AskedSampling
    general: AskedSampling
    ngram: Annotated[
        int,
        Setting(
            "drop samples that share this many consecutive words with the evaluation",
            unit="words",
            least=1,
        ),
    ]
    sft: FineTuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceReward(Section):
    """A reward model's part in the reward."""

    weight: Annotated[float, Setting("weight of the reward")]
    tasks: Annotated[str | None, Setting("tasks that it rewards, joined by +")] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1(Section):
    """RL for all scenarios, with reward models of helpfulness and harmlessness."""

    harmless_problems: Counts
    sampling: Sampling
    reward_model: FineTuning
    helpful: PreferenceReward
    harmless: PreferenceReward
    rl: RecipeRl

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from check_tasks("harmless_problems", self.harmless_problems)
        if isinstance(self.rl.rewards, str):
            yield "rl.rewards", "must be a mapping: the reward models are added to it"


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
    delimiter: Annotated[str, Setting("text that ends a step", empty=True)]
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
    shots: Annotated[int, Setting("worked examples in few-shot prompts", least=1)]
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
class TinyConfig(Run):
    """A config of `launch.run_r1` and `launch.run_search`."""

    entry_point = "launch.run_r1"
    example = "configs/tiny.py"

    tokenizer: TokenizerTraining
    model: Model
    pretrain: Pretraining
    r1_zero: RecipeRl
    cold_start: ColdStart
    reasoning_rl: RecipeRl
    rejection_sft: RejectionSft
    r1: R1
    verifiers: Verifiers
    search: Search
    distill: RecipeDistilling

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        for name, model in (("model", self.model), ("distill.base.model", self.distill.base.model)):
            if model.vocab_size < self.tokenizer.vocab_size:
                yield (
                    f"{name}.vocab_size",
                    f"is smaller than tokenizer.vocab_size={self.tokenizer.vocab_size}",
                )
        if self.verifiers.language_share and not self.model.tie_embeddings:
            yield "verifiers.language_share", "needs model.tie_embeddings=true: set it to 0"
        yield from self._check_lengths()

    def _check_lengths(self) -> Iterator[tuple[str, str]]:
        """Yields responses that leave no room for a prompt in the model's context."""
        context = self.model.max_length
        sections = {
            "evaluation": self.evaluation, "r1_zero": self.r1_zero, "cold_start": self.cold_start,
            "reasoning_rl": self.reasoning_rl, "rejection_sft.reasoning":
            self.rejection_sft.reasoning, "rejection_sft.general": self.rejection_sft.general,
            "r1.sampling": self.r1.sampling, "r1.rl": self.r1.rl, "verifiers": self.verifiers,
            "search": self.search, "distill.data": self.distill.data,
        }  # fmt: skip
        for name, section in sections.items():
            if context is not None and section.max_new_tokens >= context:
                yield f"{name}.max_new_tokens", f"leaves no room in model.max_length={context}"
