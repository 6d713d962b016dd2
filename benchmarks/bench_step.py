"""Times the parts of a training step: layers, head, and the whole.

    python -m benchmarks.bench_step --shape=smollm2-135m

For each part it prints wall seconds, processor seconds (user and system, of all cores together),
page faults, and the memory that the process has held so far. Processor seconds hold also while
other programs run. The fastest of `--rounds` rounds counts, after one that compiles and one that
warms up.
"""
# ruff: noqa: E402  (The backend must be prepared before JAX is imported.)

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

from launch.parts.runtime import prepare_backend

prepare_backend()

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.shapes import SHAPES, Shape
from benchmarks.sides import processor
from models.decoder import LanguageModel
from models.logprobs import token_logprobs
from models.sharding import make_mesh
from train.objectives import sft
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step


def parts(shape: Shape) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yields the name of each part and a function that runs it and waits for its end."""
    model, mesh = LanguageModel(shape.config), make_mesh()
    params = jax.jit(model.init)(jax.random.key(0))
    rng, size = np.random.default_rng(0), (shape.rows, shape.length)
    tokens = rng.integers(0, shape.config.vocab_size, size).astype(np.int32)
    positions = np.broadcast_to(np.arange(shape.length, dtype=np.int32), size)
    segments, weights = np.ones(size, np.int32), np.ones(size, np.float32)
    batch = {
        "tokens": tokens, "positions": positions, "segment_ids": segments, "loss_weights": weights
    }  # fmt: skip

    def waiting(fn: Callable, *arguments: Any) -> Callable[[], Any]:
        compiled = jax.jit(fn)
        return lambda: jax.block_until_ready(compiled(*arguments))

    def layers(params):
        return model.hidden(params, tokens, positions, segments).sum()

    def head(params, hidden):
        return token_logprobs(model, params, hidden, tokens).sum()

    hidden = jnp.asarray(rng.normal(size=(*size, shape.config.embed_dim)), jnp.float32)
    yield "layers, forward", waiting(layers, params)
    yield "layers, forward and backward", waiting(jax.grad(layers), params)
    yield "head, forward and backward", waiting(jax.grad(head, argnums=(0, 1)), params, hidden)

    settings = dict(name="adamw", learning_rate=1e-4, weight_decay=0.1, clip_norm=1.0)
    optimizer = make_optimizer(settings, model.abstract_params, 10_000)
    step = make_train_step(sft.make_loss(model), optimizer, mesh)
    state = state_from_params(model, params, optimizer, mesh)
    put = step.put(batch)

    def whole():
        nonlocal state
        state, metrics = step(state, put)
        jax.block_until_ready(metrics["loss"])

    yield "whole step", whole


def timed(run: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Returns the figures of the round with the fewest wall seconds."""
    best: dict[str, float] = {}
    for number in range(2 + rounds):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        if number >= 2 and seconds < best.get("seconds", float("inf")):
            best = {
                "seconds": round(seconds, 2),
                "user_seconds": round(after.ru_utime - before.ru_utime, 2),
                "system_seconds": round(after.ru_stime - before.ru_stime, 2),
                "page_faults": after.ru_minflt - before.ru_minflt,
                "held_gib": round(after.ru_maxrss / 2**20, 2),
            }
    return best


def main() -> None:
    """Prints a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", default="", help="only parts whose name contains this")
    arguments = parser.parse_args()
    print(processor(), flush=True)
    for name, run in parts(SHAPES[arguments.shape]):
        if arguments.only in name:
            print(name, json.dumps(timed(run, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
