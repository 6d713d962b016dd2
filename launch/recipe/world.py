"""Gives the stages the tiny world: corpus, tokenizer, training problems and workspaces."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launch.parts import runtime
from launch.parts.stages import Workspace, evaluation_problems
from launch.schema import as_dict
from launch.schema.sections import check_rows
from launch.schema.tiny import TinyConfig, TokenizerTraining
from models.files import read_json, write_atomically
from models.manifest import Damaged, check_manifest, write_manifest
from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe
from reasoning import response
from reasoning.problem import Problem
from reasoning.prompts import CHAT_TEMPLATE, PLAIN
from reasoning.tasks import get_task
from reasoning.tiny_world import corpus

# The tokenizer is the same for every seed.
TOKENIZER_SEED = 0


def open_workspaces(
    config: TinyConfig, directory: Path, num_seeds: int, accept_stopped: Sequence[str] = ()
) -> list[Workspace[TinyConfig]]:
    """Returns the workspaces of runs with seeds `config.seed`, `config.seed` + 1, ...

    All runs share one model, mesh and tokenizer.
    """
    runtime.keep_compiled(directory)
    model, mesh = runtime.build_model(config.model.settings()), runtime.build_mesh(config)
    check_rows(config, mesh.shape["data"] * mesh.shape["fsdp"])
    trained = tokenizer(directory / "tokenizer", config.tokenizer)
    return [
        Workspace(
            directory / f"seed_{seed}", config, seed, mesh, model, trained, tuple(accept_stopped)
        )
        for seed in range(config.seed, config.seed + num_seeds)
    ]


def texts(work: Workspace) -> list[str]:
    """Returns the pretraining corpus of a seed."""
    return _texts(work.config.pretrain.documents, work.seed)


@functools.lru_cache(maxsize=1)
def _texts(count: int, seed: int) -> list[str]:
    return corpus.documents(count, seed)


def tokenizer(directory: Path, config: TokenizerTraining) -> Tokenizer:
    """Loads the tokenizer that was saved with these settings, or trains and saves it."""
    settings = as_dict(config)
    saved = directory / "settings.json"
    remedy = f"remove the folder {directory}; the next run trains the tokenizer again"
    if not saved.exists() or read_json(saved, remedy) != settings:
        saved.unlink(missing_ok=True)
        trained = train_bpe(
            corpus.documents(config.documents, TOKENIZER_SEED),
            config.vocab_size,
            text_tokens=(
                response.THINK_OPEN, response.THINK_CLOSE, response.ANSWER_OPEN,
                response.ANSWER_CLOSE,
            ),
            eos_token="<eos>",
            pad_token="<pad>",
            template=CHAT_TEMPLATE,
        )  # fmt: skip
        trained.save(directory)
        write_manifest(directory)
        write_atomically(saved, json.dumps(settings))
    try:
        check_manifest(directory)
    except Damaged as error:
        raise ValueError(f"{error}: {remedy}") from None
    return Tokenizer.from_directory(directory)


def training_problems(work: Workspace, counts: Mapping[str, int]) -> list[Problem]:
    """Returns training problems of each task; raises an error if the evaluation asks one."""
    problems = [
        problem
        for task, count in counts.items()
        for problem in get_task(task).problems("train", count, work.seed)
    ]
    assert_held_out(work, {problem.question for problem in problems})
    return problems


def asked_in(work: Workspace) -> set[str]:
    """Returns the questions that the corpus asks."""
    start, end = PLAIN.split("{question}")
    asked = (text.partition(end) for text in texts(work) if text.startswith(start))
    return {question.removeprefix(start) for question, _, _ in asked}


def assert_held_out(work: Workspace, questions: Iterable[str]) -> None:
    """Raises `AssertionError` if a problem of the evaluation is among training questions."""
    for _, problems in evaluation_problems(work.config.evaluation, work.seed).values():
        for problem in problems:
            if problem.question in questions:
                raise AssertionError(f"test problem {problem.question!r} occurs in training")
