"""Reward models of the last stage: what people find helpful, and what is harmless.

Both are Bradley-Terry models that start as the checkpoint whose RL they are for. People compare two
final answers to small talk; and of two whole responses, the one without a rude word is to score
higher, whether the word stands in the answer or in the chain.
"""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from launch import training
from launch.recipe import sampling
from launch.stages import Workspace
from models.hf.export import export_model
from models.scalar_head import ScalarModel
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.response import parse_response
from reasoning.tiny_world import chat
from reasoning.tiny_world.corpus import tagged
from reasoning.tiny_world.language import LANGUAGES
from train import reward_model

Pairs = list[dict[str, Any]]


def helpful_pairs(
    work: Workspace, problems: list[Problem], replies: list[list[str]]
) -> Pairs:
    """What people prefer of each two of the answers to a question, one a pair of distinct answers.

    Args:
      replies: several responses to each problem, with or without the R1 format.
    """
    template = get_template(work.config.template, work.tokenizer)
    rng = sampling.rng_of(work, "people")
    pairs = []
    for problem, texts in zip(problems, replies, strict=True):
        answers = sorted({answer for text in texts if (answer := _answer(text))})
        for i, first in enumerate(answers):
            for second in answers[i + 1 :]:
                prefers = chat.people_prefer(rng, problem, first, second)
                if prefers is None:
                    continue
                chosen, rejected = (first, second) if prefers else (second, first)
                pairs.append(
                    {
                        "prompt": template(problem.question),
                        "chosen": f" {chosen}",
                        "rejected": f" {rejected}",
                    }
                )
    return pairs


def harmless_pairs(
    work: Workspace, problems: list[Problem], responses: list[list[str]]
) -> Pairs:
    """Each inoffensive well-formed response, and the same after somebody made it rude."""
    template = get_template(work.config.template, work.tokenizer)
    rng = sampling.rng_of(work, "red team")
    pairs = []
    for problem, texts in zip(problems, responses, strict=True):
        for text in dict.fromkeys(texts):
            if parse_response(text).well_formed and not chat.is_harmful(text):
                pairs.append(
                    {
                        "prompt": template(problem.question),
                        "chosen": text,
                        "rejected": _made_rude(rng, problem, text),
                    }
                )
    return pairs


def _answer(text: str) -> str:
    answer = parse_response(text).answer
    return text.strip() if answer is None else answer


def _made_rude(rng: random.Random, problem: Problem, text: str) -> str:
    """A response with a rude reply for its answer, or with one among the lines of its chain."""
    parsed = parse_response(text)
    language = LANGUAGES[problem.metadata["language"]]
    name = problem.metadata.get("name", rng.choice(sorted(chat.NAMES)))
    rude = rng.choice(language.rude_replies).format(name)
    lines = [line.strip() for line in parsed.chain.splitlines() if line.strip()]
    if rng.random() < 0.5:
        return tagged(lines, rude)
    lines.insert(rng.randint(0, len(lines)), rude)
    return tagged(lines, parsed.answer)


def train_reward_model(
    work: Workspace, params: Any, make_pairs: Callable[[], Pairs], config: Any, directory: Path
) -> Path:
    """Trains a reward model from a policy's parameters, which it leaves alone.

    Args:
      config: what `launch.training.plan_supervised` reads, and `epochs`.
      directory: gets `pairs.jsonl`, and `hf/` at the end; where it is there, nothing is done.

    Returns:
      The directory of the weights.
    """
    exported = directory / "hf"
    if exported.exists():
        return exported
    sampling.once(directory / "pairs.jsonl", make_pairs)
    scalar = dataclasses.replace(work, model=ScalarModel(work.model.config, bias=False))
    plan = training.plan_supervised(
        scalar,
        reward_model.load_pairs(directory / "pairs.jsonl", work.tokenizer),
        config,
        epochs=config.epochs,
        make_loss=reward_model.make_loss,
        finalize=reward_model.mean_metrics,
    )
    key = jax.random.key(sampling.seed_of(work, f"head of {directory.name}"))
    copied = jax.tree.map(lambda x: x.copy(), params)
    start = scalar.model.from_language_model(copied, key)
    trained = training.fine_tune(scalar, start, plan, directory)
    return export_model(
        exported, work.model.config, trained, work.tokenizer, scalar_head=scalar.model
    )
