"""Cold start: fine-tunes the base model on long, readable chains that R1-Zero wrote.

The data are gathered like those of DeepSeek-R1 (arXiv:2501.12948, 2.3.1). R1-Zero answers problems,
with or without worked examples that check themselves in the prompt. Right and readable responses
are kept and put into one format.
"""

from pathlib import Path
from typing import Any

from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, sampling, world
from reasoning.jsonl import write_jsonl
from reasoning.problem import Problem
from reasoning.prompts import few_shot, get_template
from reasoning.training_data.curation import Readability, VerifiedSample, curate


def _prompts(work: Workspace, problems: list[Problem]) -> list[str]:
    """Puts worked examples of the same kind before each problem, `shots` of them."""
    template = get_template(work.config.template, work.tokenizer)
    if not work.config.cold_start.shots:
        return [template(problem.question) for problem in problems]
    rng = sampling.rng_of(work, "cold start examples")
    of_world, shots = world.world_of(work.config), work.config.cold_start.shots
    return [
        few_shot(template, of_world.examples(rng, problem, shots))(problem.question)
        for problem in problems
    ]


def check(work: Workspace) -> None:
    """Raises `ValueError` if a prompt leaves no room for its response."""
    config = work.config.cold_start
    prompts = _prompts(work, world.training_problems(work, config.problems))
    stages.check_prompts(work, prompts, config.max_new_tokens)


def _collect(work: Workspace, directory: Path) -> list[dict[str, Any]]:
    config = work.config.cold_start
    problems = world.training_problems(work, config.problems)
    texts = sampling.sample(
        work,
        stages.load_stage(work, "r1_zero"),
        _prompts(work, problems),
        config,
        "cold start",
        directory,
        cut_off=False,
    )
    candidates = sampling.verify(work, problems, texts)
    # The cold start needs long chains, so the longest of each problem come first.
    candidates.sort(key=lambda each: -len(each.response))
    kept, counts = curate(
        candidates,
        Readability(min_lines=world.world_of(work.config).min_lines),
        sampling.decontaminator(work, config.ngram),
        per_problem=config.per_problem,
    )
    write_jsonl(directory / "curation.json", [counts])
    print(f"cold start: {counts}", flush=True)
    return [VerifiedSample.record(each) for each in kept]


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Collects R1-Zero's chains and fine-tunes the base model on them; returns its report."""
    config = work.config.cold_start.sft
    return sampling.train_base(work, directory, config, lambda: _collect(work, directory))


STAGE = Stage(needs=("base", "r1_zero"), fields=("template", "cold_start"), run=run, check=check)
