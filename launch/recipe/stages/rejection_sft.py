"""Rejection sampling and SFT of the base model (DeepSeek-R1, arXiv:2501.12948, 2.3.3).

The RL checkpoint answers training problems several times; right and readable chains in one language
are kept. To these come knowledge and small talk from the base model's own samples: recollections
that are right, and replies that are not rude. The two kinds are mixed in a proportion; the paper's
is 3, of 600k to 200k.
"""

from pathlib import Path
from typing import Any

from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, sampling, world
from reasoning.jsonl import write_jsonl
from reasoning.prompts import get_template
from reasoning.training_data.curation import (
    Decontaminator,
    Readability,
    VerifiedSample,
    curate,
)


def check(work: Workspace) -> None:
    """Raises `ValueError` if a prompt leaves no room for its response."""
    config = work.config.rejection_sft
    template = get_template(work.config.template, work.tokenizer)
    for part in filter(None, (config.reasoning, config.general)):
        problems = world.training_problems(work, part.problems)
        prompts = [template(problem.question) for problem in problems]
        stages.check_prompts(work, prompts, part.max_new_tokens)


def _reasoning(
    work: Workspace, clean: Decontaminator, directory: Path
) -> tuple[list[VerifiedSample], dict[str, int]]:
    config = work.config.rejection_sft
    problems = world.training_problems(work, config.reasoning.problems)
    template = get_template(work.config.template, work.tokenizer)
    texts = sampling.sample(
        work,
        stages.load_stage(work, "reasoning_rl"),
        [template(problem.question) for problem in problems],
        config.reasoning,
        "rejection sampling",
        directory,
        cut_off=False,
    )
    candidates = sampling.verify(work, problems, texts)
    return curate(
        candidates,
        Readability(min_lines=world.world_of(work.config).min_lines),
        clean,
        per_problem=config.reasoning.per_problem,
    )


def _general(
    work: Workspace, clean: Decontaminator, directory: Path
) -> tuple[list[VerifiedSample], dict[str, int]]:
    """Samples knowledge and small talk from the base model."""
    config = work.config.rejection_sft
    if config.general is None:
        return [], {}
    problems = world.training_problems(work, config.general.problems)
    template = get_template(work.config.template, work.tokenizer)
    texts = sampling.sample(
        work,
        stages.load_stage(work, "base"),
        [template(problem.question) for problem in problems],
        config.general,
        "general data",
        directory,
        cut_off=False,
    )
    candidates = sampling.verify(work, problems, texts, bare_answers=True)
    return curate(
        [world.world_of(work.config).judged(each) for each in candidates],
        Readability(min_lines=0),
        clean,
        per_problem=config.general.per_problem,
    )


def _collect(work: Workspace, directory: Path) -> list[dict[str, Any]]:
    clean = sampling.decontaminator(work, work.config.rejection_sft.ngram)
    parts = []
    for name, make in (("reasoning", _reasoning), ("general", _general)):
        kept, counts = make(work, clean, directory)
        print(f"rejection sampling, {name}: {counts}", flush=True)
        write_jsonl(directory / f"curation_{name}.json", [counts])
        sampling.rng_of(work, f"shuffle {name}").shuffle(kept)
        parts.append(kept)
    reasoning, general = parts
    proportion = work.config.rejection_sft.proportion
    if proportion is not None and work.config.rejection_sft.general is not None:
        general = general[: int(len(reasoning) / proportion)]
        reasoning = reasoning[: int(len(general) * proportion)]
    return [each.record() for each in (*reasoning, *general)]


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Collects samples and fine-tunes the base model on them; returns its report."""
    config = work.config.rejection_sft.sft
    return sampling.train_base(work, directory, config, lambda: _collect(work, directory))


STAGE = Stage(
    needs=("base", "reasoning_rl"), fields=("template", "rejection_sft"), run=run, check=check
)
