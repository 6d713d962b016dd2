"""Compares SFT steps and generation with PyTorch + transformers: same weights, same work, one CPU.

    make bench          (or: python -m benchmarks.bench_vs_transformers --shapes=d128 --quick)

The sides take turns, each in a process of its own; quote medians and ratios. transformers trains
twice: as it comes, and with the allocator settings of this project's entry points
(`launch.parts.runtime.prepare_backend`) and pages of 2 MiB, which this project's side has, too. So
the report separates the gain of the allocator from the gain of the code, on rows without padding.

SFT is measured on two kinds of rows: rows without padding, whose shapes are the same on both sides,
and documents of uneven length. transformers pads the latter to the longest of a batch, this project
packs them, and only real tokens count.

Work is told as a share of what the machine can do, measured in the same run: training as a share of
the speed of a large matrix product by whichever library is faster, decoding as a share of the speed
at which memory is read, where each decode step reads all weights once.
"""
# ruff: noqa: E402  (The backend must be prepared before JAX is imported.)
# Only the environment of this benchmark has torch and transformers.
# pyright: reportMissingImports=false

import argparse
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.shapes import SHAPES, Generation, Shape
from benchmarks.sides import ALLOCATOR, Measured, Side, processor, take_turns
from launch.parts.runtime import prepare_backend

if os.environ.get(ALLOCATOR, "kept") == "kept":
    prepare_backend()

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.hf.export import export_model
from models.sharding import make_mesh
from models.tokens.packing import pack, place
from train.objectives import sft
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

OURS, THEIRS, THEIRS_KEPT = "ours", "transformers", "transformers_with_our_allocator"
# Sides of a matrix product, and float32 numbers that are read to measure the memory.
PRODUCT, READ = 2048, 2**28


def our_params(shape: Shape) -> Any:
    """Returns random parameters of the shape's model."""
    return jax.jit(LanguageModel(shape.config).init)(jax.random.key(0))


def their_model(directory: str) -> Any:
    """Loads an exported model with transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


# Each of the next functions prepares one side and returns a function that runs one turn.


def our_product() -> Callable[[], Any]:
    """Prepares a matrix product with JAX."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(PRODUCT, PRODUCT)), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a).block_until_ready()


def their_product() -> Callable[[], Any]:
    """Prepares a matrix product with torch."""
    import torch

    numbers = np.random.default_rng(0).normal(size=(PRODUCT, PRODUCT))
    a = torch.from_numpy(numbers.astype(np.float32))
    return lambda: a @ a


def their_reading() -> Callable[[], Any]:
    """Prepares a sum over 1 GiB with torch."""
    import torch

    a = torch.ones(READ)
    return a.sum


def our_training(shape: Shape, documents: Sequence[np.ndarray]) -> Callable[[], None]:
    """Prepares a training step of this project on packed documents."""
    model, mesh = LanguageModel(shape.config), make_mesh()
    settings = dict(name="adamw", learning_rate=1e-4, weight_decay=0.1, clip_norm=1.0)
    optimizer = make_optimizer(settings, model.abstract_params, 10_000)
    state = state_from_params(model, our_params(shape), optimizer, mesh)
    step = make_train_step(sft.make_loss(model), optimizer, mesh)
    examples = [{"tokens": d, "loss_weights": np.ones(len(d), np.float32)} for d in documents]
    places = place([len(d) for d in documents], shape.length)
    batch = step.put(pack(examples, places, shape.length, shape.rows))

    def run():
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics["loss"])

    return run


def their_training(directory: str, documents: Sequence[np.ndarray]) -> Callable[[], None]:
    """Prepares a training step of transformers on padded documents."""
    import torch

    model = their_model(directory).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    longest = max(len(d) for d in documents)
    ids = torch.zeros(len(documents), longest, dtype=torch.long)
    mask = torch.zeros(len(documents), longest, dtype=torch.long)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = torch.from_numpy(document)
        mask[row, : len(document)] = 1
    labels = ids.masked_fill(mask == 0, -100)
    attention_mask = None if mask.all() else mask

    def run():
        model(input_ids=ids, attention_mask=attention_mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def our_generation(shape: Shape, work: Generation, prompts: np.ndarray) -> Callable[[], None]:
    """Prepares the generation of a batch with this project's sampler."""
    params, key, rows = our_params(shape), jax.random.key(0), prompts.tolist()
    sampler = Sampler(
        LanguageModel(shape.config), slots=work.prompts, group=work.group,
        max_new_tokens=work.new_tokens, stop_ids=[],
    )  # fmt: skip

    def run():
        assert sampler(params, rows, key).lengths.sum() == work.tokens

    return run


def their_generation(directory: str, work: Generation, prompts: np.ndarray) -> Callable[[], None]:
    """Prepares the generation of a batch with transformers."""
    import torch

    model, ids = their_model(directory).eval(), torch.from_numpy(prompts)

    def run():
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
                min_new_tokens=work.new_tokens, max_new_tokens=work.new_tokens, pad_token_id=0,
                num_return_sequences=work.group,
            )  # fmt: skip
        assert out.shape == (work.prompts * work.group, work.prompt_tokens + work.new_tokens)

    return run


def compare(tokens: int, measured: dict[str, Measured]) -> dict[str, Any]:
    """Returns tokens per second and memory of each side, and our speed over that of the others."""
    found: dict[str, Any] = {}
    for side, each in measured.items():
        found[side] = {
            "tokens_per_s": round(tokens / each.median, 1),
            "range": [round(tokens / f(each.seconds), 1) for f in (max, min)],
            "peak_gib": round(each.peak_gib, 2),
            "first_seconds": round(each.first_seconds, 1),
        }
    for side in measured.keys() - {OURS}:
        ratios = [b / a for a, b in zip(measured[OURS].seconds, measured[side].seconds)]
        found[f"ratio_to_{side}"] = {
            "median": round(measured[side].median / measured[OURS].median, 2),
            "range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return found


def measure_machine() -> dict[str, Any]:
    """Returns the processor, and the most that it does: products and reading of memory."""
    products = take_turns(9, {OURS: Side(our_product), THEIRS: Side(their_product)})
    reading = take_turns(7, {THEIRS: Side(their_reading)})
    fastest = min(min(each.seconds) for each in products.values())
    return {
        "processor": processor(),
        "peak_gflops": round(2 * PRODUCT**3 / fastest / 1e9, 1),
        "read_gb_per_s": round(4 * READ / min(reading[THEIRS].seconds) / 1e9, 1),
    }


def measure(shape: Shape, machine: dict[str, Any], quick: bool, only: str) -> dict[str, Any]:
    """Measures training and generation of one shape; see the module's docstring.

    Args:
      machine: what `measure_machine` returned.
      quick: fewer rounds.
      only: measures the work whose name contains this.
    """
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = f"{scratch}/hf"
        export_model(directory, shape.config, our_params(shape))
        for name, documents in shape.documents().items():
            if only not in name:
                continue
            sides = {
                OURS: Side(our_training, (shape, documents)),
                THEIRS: Side(their_training, (directory, documents), "default"),
            }
            if name == "dense":  # Padded documents of a real shape take 10 GiB a side.
                sides[THEIRS_KEPT] = Side(their_training, (directory, documents))
            measured = take_turns(max(3, shape.rounds // 3) if quick else shape.rounds, sides)
            tokens = sum(len(d) for d in documents)
            results[name] = found = compare(tokens, measured)
            flops = 3 * shape.config.flops_per_token(tokens / len(documents) / 2)
            for side in measured:
                speed = found[side]["tokens_per_s"] * flops
                found[side]["share_of_peak"] = round(speed / machine["peak_gflops"] / 1e9, 3)
            print(name, json.dumps(found), flush=True)
        for name, work in shape.generations.items():
            if only not in name:
                continue
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            prompts = rng.integers(0, shape.config.vocab_size, (work.prompts, work.prompt_tokens))
            measured = take_turns(
                3,
                {
                    OURS: Side(our_generation, (shape, work, prompts)),
                    THEIRS: Side(their_generation, (directory, work, prompts), "default"),
                },
            )
            results[name] = found = compare(work.tokens, measured)
            rows = work.prompts * work.group
            for side in measured:
                read = found[side]["tokens_per_s"] / rows * 4 * shape.config.num_params
                found[side]["share_of_bandwidth"] = round(read / machine["read_gb_per_s"] / 1e9, 3)
            print(name, json.dumps(found), flush=True)
    return results


def main() -> None:
    """Prints the report as JSON, and writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--shapes", default="d128,d512,smollm2-135m", help=", ".join(SHAPES))
    parser.add_argument("--only", default="", help="only work whose name contains this")
    parser.add_argument("--output", default="runs/bench.json", help="a file that gets the report")
    arguments = parser.parse_args()
    names = arguments.shapes.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"--shapes={unknown[0]} is unknown: choose from {', '.join(SHAPES)}")
    report: dict[str, Any] = measure_machine()
    print(json.dumps(report), flush=True)
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(name, flush=True)
        report[name] = measure(SHAPES[name], report, arguments.quick, arguments.only)
        # Written after each shape, so that nothing is lost if the next one is interrupted.
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"report: {output}")


if __name__ == "__main__":
    main()
