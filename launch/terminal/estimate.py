"""Estimates how long the stages of the recipe take on this machine.

A stage's seconds are the sum of what it computes, in tokens and compiled programs, each times a
cost. The costs were measured on the reference machine of `REFERENCE`. A probe of about a second
measures how much slower or faster this machine is; once a stage trains, its own steps replace the
probe (`launch.terminal.following`).
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from launch.schema.recipe import RecipeConfig
from launch.schema.rl import RecipeRl
from launch.schema.sections import Evaluation, FineTuning, Sampling

# The machine of the costs below: two cores of an AMD EPYC with configs/tiny.py. Their sums are
# those of the base model and of R1-Zero on idle cores (docs/results/time.json). How they divide was
# read from a run on busy cores, so the first estimate is rough.
REFERENCE = {"parameters": 788_000, "multiply": 0.034, "compile": 0.34}
# Seconds a token of that model, and seconds a compiled program.
SUPERVISED, POLICY, SAMPLED, EVALUATED, COMPILED = 3.0e-5, 1.5e-5, 2.9e-5, 1.1e-5, 2.0
# A response has about this share of the most tokens that it may have.
RESPONSE_SHARE = 0.5
# Tokens of a page of the corpus, and of a response with its prompt.
TOKENS_A_PAGE, TOKENS_AN_EXAMPLE = 41, 90
# Problems of a task of which all are taken.
WHOLE_TASK = 1000


@dataclasses.dataclass(frozen=True)
class Speed:
    """How many times as long as the reference machine this one takes, by kind of work."""

    compute: float = 1.0
    compile: float = 1.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What a stage computes, in seconds of the reference machine.

    Attributes:
      steps: updates of its main training; 0 if it has none.
      step: seconds of an update, with the samples that it needs.
      around: seconds of everything else that computes, such as the evaluation.
      compiling: seconds of compilation.
    """

    steps: int = 0
    step: float = 0.0
    around: float = 0.0
    compiling: float = 0.0

    def seconds(self, speed: Speed) -> float:
        """Returns the seconds that the stage takes at a speed."""
        return speed.compute * (self.steps * self.step + self.around) + (
            speed.compile * self.compiling
        )


def probe() -> Speed:
    """Measures this machine: products of the reference model's size, and one compilation."""
    import jax
    import jax.numpy as jnp

    def products(x, a, b):
        def layer(x, _):
            return jnp.tanh(x @ a) @ b, None

        return jax.lax.scan(layer, x, length=4)[0].sum()

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((2048, 128), (128, 384), (384, 128))
    arguments = [jax.random.normal(key, shape) / 16 for key, shape in zip(keys, shapes)]
    gradient = jax.jit(jax.grad(products, argnums=(1, 2)))
    lowered = gradient.lower(*arguments)
    start = time.perf_counter()
    compiled = lowered.compile()
    compiling = time.perf_counter() - start
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        spent.append(time.perf_counter() - start)
    return Speed(min(spent) / REFERENCE["multiply"], compiling / REFERENCE["compile"])


def estimate(config: RecipeConfig, parameters: int) -> dict[str, Work]:
    """Returns what each stage of the recipe computes, for the stages that have an estimate.

    Args:
      config: the recipe.
      parameters: weights of the model.
    """
    size = parameters / REFERENCE["parameters"]
    found = {name: make(config) for name, make in _MAKERS.items()}
    return {
        name: dataclasses.replace(work, step=size * work.step, around=size * work.around)
        for name, work in found.items()
    }


def total(
    work: Mapping[str, Work], names: Sequence[str], speed: Speed, seeds: int = 1
) -> tuple[float, list[str]]:
    """Returns the seconds of some stages at a speed, and which of them have no estimate."""
    known = [name for name in names if name in work]
    missing = [name for name in names if name not in work]
    return seeds * sum(work[name].seconds(speed) for name in known), missing


def duration(seconds: float) -> str:
    """Formats seconds for people: `40 s`, `3 min 30 s`, `42 min`, `1 h 20 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(round(whole / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def asked(problems: Mapping[str, int]) -> int:
    """Returns the number of training problems; all of a task are taken for `WHOLE_TASK`."""
    return sum(WHOLE_TASK if count == -1 else count for count in problems.values())


def _evaluation(config: Evaluation, stage: str) -> float:
    length = RESPONSE_SHARE * config.max_new_tokens
    problems = config.problems or WHOLE_TASK
    responses = len(config.tasks) * problems * config.samples
    if config.votes is not None and stage in config.votes.stages:
        responses += len(config.votes.domains) * problems * config.votes.samples
    return EVALUATED * length * responses


def _sampling(config: Sampling, problems: Mapping[str, int]) -> float:
    length = RESPONSE_SHARE * config.max_new_tokens
    return SAMPLED * length * config.samples * asked(problems)


def _fine_tuning(config: FineTuning, examples: int) -> float:
    return SUPERVISED * TOKENS_AN_EXAMPLE * examples * config.epochs


def _base(config: RecipeConfig) -> Work:
    own = getattr(config, "pretrain", None)
    if own is None:  # A checkpoint, which is evaluated as it is.
        return Work(around=_evaluation(config.evaluation, "base"), compiling=COMPILED)
    tokens = own.rows * own.row_length
    steps = max(1, own.documents * TOKENS_A_PAGE // tokens)
    return Work(steps, SUPERVISED * tokens, _evaluation(config.evaluation, "base"), 3 * COMPILED)


def _reinforce(config: RecipeConfig, own: RecipeRl, stage: str) -> Work:
    steps = own.num_steps(asked(own.problems))
    updates = own.minibatches * own.epochs
    sampled = own.prompts * own.group * RESPONSE_SHARE * own.max_new_tokens / updates
    step = SAMPLED * sampled + POLICY * own.rows * own.row_length
    return Work(steps, step, _evaluation(config.evaluation, stage), 4 * COMPILED)


def _cold_start(config: RecipeConfig) -> Work:
    own = config.cold_start
    kept = own.per_problem * asked(own.problems)
    around = _sampling(own, own.problems) + _fine_tuning(own.sft, kept)
    return Work(
        around=around + _evaluation(config.evaluation, "cold_start"), compiling=4 * COMPILED
    )


def _rejection_sft(config: RecipeConfig) -> Work:
    own = config.rejection_sft
    around, kept = 0.0, 0
    for part in filter(None, (own.reasoning, own.general)):
        around += _sampling(part, part.problems)
        kept += part.per_problem * asked(part.problems)
    around += _fine_tuning(own.sft, kept) + _evaluation(config.evaluation, "rejection_sft")
    return Work(around=around, compiling=5 * COMPILED)


def _r1(config: RecipeConfig) -> Work:
    own = config.r1
    work = _reinforce(config, own.rl, "r1")
    if own.sampling is None or own.reward_model is None:  # Rules alone reward.
        return work
    around = _sampling(own.sampling, own.harmless_problems)
    responses = own.sampling.samples * asked(own.harmless_problems)
    around += 2 * _fine_tuning(own.reward_model, 2 * responses)
    return dataclasses.replace(
        work, around=work.around + around, compiling=work.compiling + 5 * COMPILED
    )


# The stages after these depend on what the earlier ones wrote: verifiers, search, distill.
_MAKERS: dict[str, Callable[[RecipeConfig], Work]] = {
    "base": _base,
    "r1_zero": lambda config: _reinforce(config, config.r1_zero, "r1_zero"),
    "cold_start": _cold_start,
    "reasoning_rl": lambda config: _reinforce(config, config.reasoning_rl, "reasoning_rl"),
    "rejection_sft": _rejection_sft,
    "r1": _r1,
}
