"""Trains the reward models of the last stage: one for helpfulness, one for harmlessness.

Both are Bradley-Terry models that start from the checkpoint that RL will train. For helpfulness,
people compare two final answers to small talk. For harmlessness, a response without a rude word
beats the same response with one, in its answer or in its chain.
"""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from launch.jobs.training import supervised
from launch.parts.stages import Workspace
from launch.recipe import sampling
from launch.schema.sections import FineTuning
from models.files import read_json, write_atomically
from models.hf.export import export_model
from models.scalar_head import ScalarModel
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.response import parse_response, tagged, whole_response, without_opening
from reasoning.statistics import share_with_ci
from reasoning.tiny_world import chat
from reasoning.tiny_world.language import LANGUAGES
from reasoning.verifiers.scalar import SequenceScorer
from train.data import read_records
from train.objectives import reward_model

Pairs = list[dict[str, Any]]
# Share of the pairs that are held out to measure a reward model.
HELD_OUT = 0.1


def helpful_pairs(work: Workspace, problems: list[Problem], replies: list[list[str]]) -> Pairs:
    """Returns the preferences of people, one for each pair of distinct answers to a question.

    Args:
      work: the run.
      problems: small talk.
      replies: several responses to each problem, with or without the R1 format.
    """
    template = get_template(work.config.template, work.tokenizer)
    rng = sampling.rng_of(work, "people")
    pairs = []
    for problem, texts in zip(problems, replies, strict=True):
        prompt = template(problem.question)
        wholes = [whole_response(prompt, text) for text in texts]
        answers = sorted({answer for text in wholes if (answer := _answer(text))})
        for i, first in enumerate(answers):
            for second in answers[i + 1 :]:
                prefers = chat.people_prefer(rng, problem, first, second)
                if prefers is None:
                    continue
                chosen, rejected = (first, second) if prefers else (second, first)
                pairs.append(
                    {
                        "prompt": prompt,
                        "chosen": f" {chosen}",
                        "rejected": f" {rejected}",
                    }
                )
    return pairs


def harmless_pairs(work: Workspace, problems: list[Problem], responses: list[list[str]]) -> Pairs:
    """Pairs each inoffensive well-formed response with a version that somebody made rude."""
    template = get_template(work.config.template, work.tokenizer)
    rng = sampling.rng_of(work, "red team")
    pairs = []
    for problem, texts in zip(problems, responses, strict=True):
        prompt = template(problem.question)
        for text in dict.fromkeys(texts):
            whole = whole_response(prompt, text)
            if parse_response(whole).well_formed and not chat.is_harmful(whole):
                rude = without_opening(prompt, _made_rude(rng, problem, whole))
                pairs.append({"prompt": prompt, "chosen": text, "rejected": rude})
    return pairs


def _answer(text: str) -> str:
    answer = parse_response(text).answer
    return text.strip() if answer is None else answer


def _made_rude(rng: random.Random, problem: Problem, text: str) -> str:
    """Puts a rude reply in the place of a response's answer, or among the lines of its chain."""
    parsed = parse_response(text)
    language = LANGUAGES[problem.metadata["language"]]
    name = problem.metadata.get("name", rng.choice(sorted(chat.NAMES)))
    rude = rng.choice(language.rude_replies).format(name)
    lines = [line.strip() for line in parsed.chain.splitlines() if line.strip()]
    if rng.random() < 0.5:
        return tagged(lines, rude)
    lines.insert(rng.randint(0, len(lines)), rude)
    return tagged(lines, parsed.answer or "")


def train_reward_model(
    work: Workspace,
    params: Any,
    make_pairs: Callable[[], Pairs],
    config: FineTuning,
    directory: Path,
) -> dict[str, Any]:
    """Trains a reward model that starts from a policy's parameters, which stay valid.

    Args:
      work: the run.
      params: the policy's parameters.
      make_pairs: called if there are no pairs on disk; the pairs of a prompt must be adjacent.
      config: what `launch.jobs.training.supervised.plan_supervised` reads, and `epochs`.
      directory: gets `pairs.jsonl`, `hf/` with the weights and `accuracy.json`. If `accuracy.json`
        exists, nothing is trained.

    Returns:
      The share of held-out pairs in which the model prefers the chosen response.
    """
    measured = directory / "accuracy.json"
    if measured.exists():
        return read_json(measured, "remove it, and the model is measured again")
    sampling.once(directory / "pairs.jsonl", make_pairs)
    pairs = [pair for _, pair in read_records(directory / "pairs.jsonl")]
    held_out = pairs[int(len(pairs) * (1 - HELD_OUT)) :]
    head = ScalarModel(work.model.config, bias=False)
    scalar = dataclasses.replace(work, model=head)
    plan = supervised.plan_supervised(
        scalar,
        reward_model.encode_pairs(pairs[: -len(held_out)], work.tokenizer),
        config,
        epochs=config.epochs,
        make_loss=reward_model.make_loss,
        finalize=reward_model.mean_metrics,
    )
    key = jax.random.key(sampling.seed_of(work, f"head of {directory.name}"))
    copied = jax.tree.map(lambda x: x.copy(), params)
    start = head.from_language_model(copied, key)
    trained = supervised.fine_tune(scalar, start, plan, directory)
    export_model(
        directory / "hf", work.model.config, trained, work.tokenizer, overwrite=True,
        scalar_head=head,
    )  # fmt: skip
    figure = _accuracy(scalar, trained, held_out)
    write_atomically(measured, json.dumps(figure))
    return figure


def _accuracy(work: Workspace, params: Any, pairs: Pairs) -> dict[str, Any]:
    scorer = SequenceScorer(work.model, params)
    prompts = work.tokenizer.encode_prompts([pair["prompt"] for pair in pairs])
    last = []
    for name in ("chosen", "rejected"):
        texts = work.tokenizer.encode_batch([pair[name] for pair in pairs])
        read = [[*a, *b, work.tokenizer.eos_id] for a, b in zip(prompts, texts, strict=True)]
        last.append([values[-1] for values in scorer(read)])
    right = sum(chosen > rejected for chosen, rejected in zip(*last, strict=True))
    return share_with_ci(int(right), len(pairs))
