"""The tiny world: a base model, its tokenizer and its student are trained on a small corpus."""

import dataclasses
import functools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.jobs.training import supervised
from launch.parts import runtime
from launch.parts.stages import Workspace
from launch.recipe.world import World
from launch.schema import as_dict
from launch.schema.sections import check_rows
from launch.schema.tiny import TinyConfig, TokenizerTraining
from models.files import read_json, write_atomically
from models.manifest import Damaged, check_manifest, write_manifest
from models.sharding import batch_shards, length_shards
from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe
from reasoning import response
from reasoning.problem import Problem
from reasoning.prompts import CHAT_TEMPLATE, PLAIN
from reasoning.response import parse_response, tagged
from reasoning.tiny_world import chat, corpora, corpus, domains
from reasoning.tiny_world.language import LANGUAGES
from reasoning.training_data.curation import VerifiedSample

# The tokenizer is the same for every seed.
TOKENIZER_SEED = 0


class TinyWorld(World):
    """See the module."""

    min_lines = 2
    plain = "plain"
    more_prompts = True

    def open_workspaces(
        self, config: TinyConfig, directory: Path, num_seeds: int, accept_stopped: Sequence[str]
    ) -> list[Workspace]:
        """Builds the model and trains or loads the tokenizer; see `World`."""
        runtime.keep_compiled(directory)
        model, mesh = runtime.build_model(config.model.settings()), runtime.build_mesh(config)
        check_rows(config, batch_shards(mesh), length_shards(mesh))
        trained = tokenizer(directory / "tokenizer", config.tokenizer, config.pretrain.corpus)
        return [
            Workspace(
                directory / f"seed_{seed}", config, seed, mesh, model, trained,
                tuple(accept_stopped),
            )
            for seed in range(config.seed, config.seed + num_seeds)
        ]  # fmt: skip

    def make_base(self, work: Workspace, directory: Path) -> Any:
        """Pretrains the base model on the corpus."""
        return supervised.pretrain(work, texts(work), work.config.pretrain, directory)

    def make_student(self, work: Workspace, directory: Path) -> Any:
        """Pretrains the student on a corpus of its own size."""
        pretrain = work.config.distill.base.pretrain
        documents = corpora.documents(
            pretrain.corpus, pretrain.documents, work.seed, pretrain.varied
        )
        return supervised.pretrain(work, documents, pretrain, directory)

    def seen(self, work: Workspace) -> set[str]:
        """Returns the questions that the corpus asks."""
        start, end = PLAIN.split("{question}")
        asked = (text.partition(end) for text in texts(work) if text.startswith(start))
        return {question.removeprefix(start) for question, _, _ in asked}

    def examples(self, rng: random.Random, like: Problem, count: int) -> list[tuple[str, str]]:
        """Returns new worked examples of the same task and language."""
        language = LANGUAGES[like.metadata["language"]]
        return [corpus.worked_example(rng, like.task, language) for _ in range(count)]

    def solved(self, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        """Returns every problem with its solution in its own language."""
        pairs = []
        for problem in problems:
            language = LANGUAGES[problem.metadata["language"]]
            *lines, answer = domains.solution_lines(problem, [language], random.Random(0))
            pairs.append((problem.question, tagged(lines, answer)))
        return pairs

    def formatted(self, problem: Problem, text: str, bare: bool) -> tuple[str, str]:
        """Writes a well-formed response with one line for each step."""
        parsed = parse_response(text)
        if parsed.well_formed and parsed.answer is not None:
            lines = [line.strip() for line in parsed.chain.splitlines() if line.strip()]
            return tagged(lines, parsed.answer), parsed.answer
        answer = text.strip()
        if bare and answer and "\n" not in answer and "<" not in answer:
            return tagged([], answer), answer
        return text, ""

    def judged(self, sample: VerifiedSample) -> VerifiedSample:
        """Judges small talk by its being inoffensive; a recollection must hold the told answer."""
        if sample.problem.task == "tiny_chat":
            return dataclasses.replace(sample, correct=not chat.is_harmful(sample.response))
        chain = parse_response(sample.response).chain
        recalled = not chain or sample.problem.metadata["told"] in chain
        return dataclasses.replace(sample, correct=sample.correct and recalled)


WORLD = TinyWorld()


def texts(work: Workspace) -> list[str]:
    """Returns the pretraining corpus of a seed."""
    pretrain = work.config.pretrain
    return _texts(pretrain.corpus, pretrain.documents, work.seed, pretrain.varied)


@functools.lru_cache(maxsize=1)
def _texts(name: str, count: int, seed: int, varied: float) -> list[str]:
    return corpora.documents(name, count, seed, varied)


def tokenizer(directory: Path, config: TokenizerTraining, corpus_name: str) -> Tokenizer:
    """Loads the tokenizer that was saved with these settings, or trains and saves it.

    Args:
      directory: where it is kept.
      config: its settings.
      corpus_name: the corpus that it is trained on, as `reasoning.tiny_world.corpora` names it.
    """
    settings = as_dict(config) | {"corpus": corpus_name}
    saved = directory / "settings.json"
    remedy = f"remove the folder {directory}; the next run trains the tokenizer again"
    if not saved.exists() or read_json(saved, remedy) != settings:
        saved.unlink(missing_ok=True)
        trained = train_bpe(
            corpora.documents(corpus_name, config.documents, TOKENIZER_SEED),
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
