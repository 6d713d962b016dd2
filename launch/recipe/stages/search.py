"""Measures inference-time scaling: every search method on the hard split, at equal compute."""

import json
from pathlib import Path
from typing import Any

from launch.jobs import search, verifier_training
from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import REASONER, Stage, world
from launch.recipe.stages import verifiers
from launch.schema.recipe import Search
from models.decoding.sampling import SamplingParams
from models.files import write_atomically
from models.seeds import derive_seed
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.problem import Problem
from reasoning.prompts import few_shot, get_template
from reasoning.search.common.evaluation import Entry
from reasoning.search.interface import Policy
from reasoning.search.methods import adaptive_budgets, method_entries
from reasoning.search.prompting import Prompting
from reasoning.tasks import get_task
from reasoning.verifiers.likelihood import SelfCertainty
from reasoning.verifiers.rule import RuleVerifier


def check(work: Workspace) -> None:
    """Raises an error if a budget of 1 is missing, or the base model has seen a search problem."""
    config = work.config.search
    if 1 not in config.budgets:
        raise ValueError(
            f"search.budgets={tuple(config.budgets)}: add 1, with which all are compared"
        )
    asked = world.world_of(work.config).seen(work)
    for problem in _problems(config, "test", config.problems, work.seed):
        if problem.question in asked:
            raise AssertionError(f"search problem {problem.question!r} has been trained on")


def _problems(config: Search, split: str, count: int, seed: int) -> list[Problem]:
    return get_task(config.task).problems(split, count, seed)


def _policy(work: Workspace, params: Any) -> Policy:
    config = work.config.search
    generator = JaxGenerator(work.model, params, work.tokenizer, rows=config.rows)
    return Policy(
        generator=generator,
        steps=JaxStepGenerator(work.model, params, work.tokenizer),
        task=get_task(config.task),
        template=get_template(work.config.template, work.tokenizer),
        max_new_tokens=config.max_new_tokens,
        step_tokens=config.step_tokens,
        typical_tokens=config.typical_tokens,
        delimiter=work.config.verifiers.delimiter,
        sampling=SamplingParams(temperature=config.temperature),
        model=work.model.config,
        rows=config.rows,
    )


def _prompted(work: Workspace, template: Any) -> dict[str, Entry]:
    """Returns the other ways to prompt, for comparison with `direct` and `cot`."""
    config, of_world = work.config.search, world.world_of(work.config)
    if not of_world.more_prompts:
        return {}
    examples = of_world.solved(_problems(config, "train", config.shots, work.seed))
    return {
        "prompt_zero_shot_cot": Entry(Prompting(get_template("cot", work.tokenizer))),
        "prompt_few_shot_cot": Entry(Prompting(few_shot(template, examples))),
        "prompt_r1": Entry(Prompting(get_template("r1_zero", work.tokenizer))),
    }


def run(work: Workspace, directory: Path) -> list[dict[str, Any]]:
    """Measures every method at every budget; returns one record for each."""
    config = work.config.search
    policy = _policy(work, stages.load_stage(work, work.config.reasoner))
    trained = work.stage_directory("verifiers")
    plan = verifiers.plan(work)
    prm = verifier_training.load_process_verifier(plan, trained)
    orm = verifier_training.load_outcome_verifier(plan, trained)
    name = world.world_of(work.config).plain or work.config.template
    plain = get_template(name, work.tokenizer)
    entries = method_entries(
        prm, orm, certainty=SelfCertainty(work.model, policy.generator.params, work.tokenizer),
        oracle=RuleVerifier(policy.task), plain=plain, aggregation=config.aggregation,
        wait=config.wait,
    )  # fmt: skip
    prompted = _prompted(work, plain)
    entries |= prompted
    budgets = list(config.budgets)

    # These are training problems of the same levels, which RL has not seen either.
    calibration_seed = derive_seed(work.seed, "calibration")
    calibration = _problems(config, "train", config.calibration, calibration_seed)
    arms = adaptive_budgets(budgets, config.tree_arms)
    calibrated = search.compare(
        policy, {name: entries[name] for name in arms}, calibration, arms,
        directory / "calibration.jsonl", seed=calibration_seed, title="search/calibration",
    )  # fmt: skip
    adaptive = search.fit_adaptive(
        policy, entries, calibrated, calibration, budgets,
        pilots=config.pilots, aggregation=config.aggregation, seed=calibration_seed,
    )  # fmt: skip
    entries["adaptive"] = Entry(adaptive, prm)
    write_atomically(directory / "plans.json", json.dumps(adaptive.describe(), indent=2))

    wanted = dict.fromkeys(entries, budgets) | dict.fromkeys(prompted, [1])
    problems = _problems(config, "test", config.problems, work.seed)
    measured = search.compare(
        policy, entries, problems, wanted, directory / "measured.jsonl",
        seed=work.seed, title="search",
    )  # fmt: skip
    records = [{"task": config.task} | each.summary() for each in measured]
    search.print_table(records)
    found = search.findings(measured)
    print("\n".join(found))
    write_atomically(directory / "findings.txt", "\n".join(found) + "\n")
    search.plot(directory / "search.png", records)
    return records


STAGE = Stage(
    needs=(REASONER, "verifiers"), fields=("template", "search", "reasoner"), run=run, check=check
)
