"""Draws samples of a checkpoint and verifies them, as training data."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from launch.jobs.training import supervised
from launch.parts import stages
from launch.parts.stages import Workspace, check_prompts, evaluation_problems
from launch.recipe.world import world_of
from launch.schema.sections import FineTuning, Sampling
from models import processes
from models.decoding.sampling import SamplingParams
from models.seeds import derive_seed
from reasoning.evaluation import verified
from reasoning.generation.generator import Completion
from reasoning.jsonl import read_jsonl, write_jsonl
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.response import whole_response
from reasoning.tasks import get_task
from reasoning.training_data.curation import Decontaminator, VerifiedSample
from train.data import load_examples

# A model that has seen several problems on a page may go on with the next one.
NEXT_PROBLEM = "\nUser:"


def seed_of(work: Workspace, purpose: str) -> int:
    """Returns a seed for one purpose of a run."""
    return derive_seed(work.seed, purpose)


def rng_of(work: Workspace, purpose: str) -> random.Random:
    """Returns a random generator for one purpose of a run; see `seed_of`."""
    return random.Random(seed_of(work, purpose))


def sample(
    work: Workspace,
    params: Any,
    prompts: Sequence[str],
    config: Sampling,
    purpose: str,
    directory: Path,
    *,
    cut_off: bool = True,
) -> list[list[str]]:
    """Returns the texts of `config.samples` completions of each prompt.

    Args:
      work: the run.
      params: the parameters to sample from.
      prompts: the prompts.
      config: how to sample, and how many prompts make a part.
      purpose: decides the seed; see `seed_of`.
      directory: the stage's folder. It keeps each part in a file, which an interrupted stage reads
        when it starts again.
      cut_off: whether to return completions, too, that `max_new_tokens` has cut off.
    """
    check_prompts(work, list(prompts), config.max_new_tokens)
    size = config.part or max(1, len(prompts))
    texts = []
    for i, start in enumerate(range(0, len(prompts), size)):
        part, seed = prompts[start : start + size], f"{purpose} {i}" if i else purpose
        path = directory / "sampled" / f"{seed.replace(' ', '_')}.jsonl"
        if processes.from_main(path.exists()):
            texts += [record["texts"] for _, record in read_jsonl(path)]
            continue
        found = _sampled(work, params, part, config, seed_of(work, seed), cut_off)
        write_jsonl(path, [{"texts": group} for group in found])
        texts += found
    return texts


def _sampled(
    work: Workspace,
    params: Any,
    prompts: Sequence[str],
    config: Sampling,
    seed: int,
    cut_off: bool,
) -> list[list[str]]:
    generator = work.generator(config.sampler_rows)
    with generator.holding(params), jax.set_mesh(work.mesh):
        completions = generator.generate(
            prompts,
            num_samples=config.samples,
            max_new_tokens=config.max_new_tokens,
            sampling=SamplingParams(temperature=config.temperature),
            seed=seed,
        )
    return [
        [c.text.partition(NEXT_PROBLEM)[0] for c in group if cut_off or _is_whole(c)]
        for group in completions
    ]


def _is_whole(completion: Completion) -> bool:
    """Says whether a response has ended, by itself or where the next problem begins."""
    return completion.finish != "length" or NEXT_PROBLEM in completion.text


def verify(
    work: Workspace,
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    *,
    bare_answers: bool = False,
) -> list[VerifiedSample]:
    """Returns verified candidates for training, in the R1 format, each with its prompt.

    Args:
      work: the run.
      problems: the problems.
      responses: several responses to each problem.
      bare_answers: accept an answer without tags and chain too, and put it into an answer block.
    """
    template = get_template(work.config.template, work.tokenizer)
    of_world = world_of(work.config)
    by_task: dict[str, list[tuple[Problem, str, str]]] = {}
    for problem, texts in zip(problems, responses, strict=True):
        for text in texts:
            text = whole_response(template(problem.question), text)
            response, answer = of_world.formatted(problem, text, bare_answers)
            by_task.setdefault(problem.task, []).append((problem, response, answer))
    candidates = []
    for task, rows in by_task.items():
        asked, texts, answers = zip(*rows, strict=True)
        verdicts = verified(get_task(task), asked, answers)
        candidates += [
            VerifiedSample(problem, template(problem.question), text, verdict.correct)
            for problem, text, verdict in zip(asked, texts, verdicts, strict=True)
        ]
    return candidates


def decontaminator(work: Workspace, n: int) -> Decontaminator:
    """Returns a finder of texts that share n words in a row with a question of the evaluation."""
    chosen = evaluation_problems(work.config.evaluation, work.seed)
    return Decontaminator((p.question for _, problems in chosen.values() for p in problems), n)


def train_base(
    work: Workspace,
    directory: Path,
    config: FineTuning,
    collect: Callable[[], Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Fine-tunes the base model on records that are collected once; returns the stage's report.

    Args:
      work: the run.
      directory: the stage's directory.
      config: what `launch.jobs.training.supervised.plan_supervised` reads, and `epochs`.
      collect: makes the records; called if there are none on disk.
    """
    data = directory / "data.jsonl"
    once(data, collect)
    examples = load_examples(data, work.tokenizer)
    plan = supervised.plan_supervised(
        work,
        examples,
        config,
        epochs=config.epochs,
        microbatches=config.microbatches,
        too_long=config.too_long,
    )
    params = supervised.fine_tune(work, stages.load_stage(work, "base"), plan, directory)
    return stages.publish(work, directory, params)


def once(path: Path, make: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    """Writes the records that `make` returns, unless the file exists; a file is always whole.

    Raises:
      ValueError: `make` returns no records.
    """
    if processes.from_main(path.exists()):
        return
    if not (records := make()):
        raise ValueError(
            f"no sample is fit for {path}: sample a checkpoint that solves more, sample more, or"
            " loosen the filters"
        )
    write_jsonl(path, records)
    processes.gathered(None)  # The others read the file when the main process has written it.
