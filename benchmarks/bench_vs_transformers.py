"""Compares SFT steps and generation with PyTorch + transformers: same weights, same work, one CPU.

    make bench          (or: python -m benchmarks.bench_vs_transformers [--quick])

Each side runs in a process of its own, without the other's libraries, so that neither side's
threads and memory disturb the other. The sides take turns, so that a drift of the machine's speed
affects all of them. Quote medians and ratios. transformers runs twice: as it comes, and with the
allocator settings of this project's entry points (`launch.parts.runtime.prepare_backend`). So the
report separates the gain of the allocator from the gain of the code.

SFT is measured on two kinds of rows: rows without padding, whose shapes are the same on both sides,
and documents of the tiny world's corpus. transformers pads the latter to the longest of a batch,
this project packs them, and only real tokens count. "Share of peak" is relative to the speed of a
large matrix product by whichever library is faster.
"""
# ruff: noqa: E402  (The backend must be prepared before JAX is imported.)
# Only the environment of this benchmark has torch and transformers.
# pyright: reportMissingImports=false

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from launch.parts.runtime import prepare_backend

# `_side` sets this variable for the processes that it starts.
if os.environ.get("BENCH_ALLOCATOR", "kept") == "kept":
    prepare_backend()

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.hf.export import export_model
from models.sharding import make_mesh
from models.tokens.packing import pack, place
from models.tokens.tokenizer_training import train_bpe
from reasoning.tiny_world import corpus
from train.objectives import sft
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

VOCAB, ROWS, LENGTH = 512, 16, 128
PROMPT, NEW_TOKENS, BATCH = 24, 96, 64
OURS, THEIRS, THEIRS_KEPT = "ours", "transformers", "transformers_with_our_allocator"


def model_config(width: int) -> ModelConfig:
    """Returns a Qwen3 config of 4 layers with D = `width`."""
    return ModelConfig(
        family="qwen3", vocab_size=VOCAB, embed_dim=width, num_layers=4, num_heads=width // 32,
        num_kv_heads=max(1, width // 128), head_dim=32, mlp_dim=3 * width, qk_norm=True,
        tie_embeddings=True, max_length=512, scan_unroll=4,
    )  # fmt: skip


def our_params(width: int) -> Any:
    """Returns random parameters of `model_config(width)`."""
    return jax.jit(LanguageModel(model_config(width)).init)(jax.random.key(0))


def their_model(directory: str) -> Any:
    """Loads an exported model with transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


# Each of the next functions prepares one side and returns a function that runs one turn.


def our_product() -> Callable[[], Any]:
    """Prepares a matrix product with JAX."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(2048, 2048)), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a).block_until_ready()


def their_product() -> Callable[[], Any]:
    """Prepares a matrix product with torch."""
    import torch

    a = torch.from_numpy(np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32))
    return lambda: a @ a


def our_training(width: int, documents: Sequence[np.ndarray]) -> Callable[[], None]:
    """Prepares a training step of this project on packed documents."""
    model, mesh = LanguageModel(model_config(width)), make_mesh()
    settings = dict(name="adamw", learning_rate=1e-4, weight_decay=0.1, clip_norm=1.0)
    optimizer = make_optimizer(settings, model.abstract_params, 10_000)
    state = state_from_params(model, our_params(width), optimizer, mesh)
    step = make_train_step(sft.make_loss(model), optimizer, mesh)
    examples = [{"tokens": d, "loss_weights": np.ones(len(d), np.float32)} for d in documents]
    batch = step.put(pack(examples, place([len(d) for d in documents], LENGTH), LENGTH, ROWS))

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


def our_generation(width: int, prompts: np.ndarray) -> Callable[[], None]:
    """Prepares the generation of a batch with this project's sampler."""
    params, key, rows = our_params(width), jax.random.key(0), prompts.tolist()
    sampler = Sampler(
        LanguageModel(model_config(width)), slots=BATCH, group=1, max_new_tokens=NEW_TOKENS,
        stop_ids=[],
    )  # fmt: skip

    def run():
        assert sampler(params, rows, key).lengths.sum() == BATCH * NEW_TOKENS

    return run


def their_generation(directory: str, prompts: np.ndarray) -> Callable[[], None]:
    """Prepares the generation of a batch with transformers."""
    import torch

    model, ids = their_model(directory).eval(), torch.from_numpy(prompts)

    def run():
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
                min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, pad_token_id=0,
            )  # fmt: skip
        assert out.shape[1] == PROMPT + NEW_TOKENS

    return run


def _serve(connection, make: Callable, arguments: Sequence) -> None:
    """Is the main function of a side's process: answers each message with the seconds of a turn."""
    run = make(*arguments)
    while connection.recv():
        start = time.perf_counter()
        run()
        connection.send(time.perf_counter() - start)


@contextlib.contextmanager
def _side(make: Callable, arguments: Sequence, allocator: str) -> Iterator[Callable[[], float]]:
    """Starts a process for one side and gives a function that runs a turn there.

    Args:
      make: prepares the side, given `arguments`, and returns what one turn runs.
      allocator: "kept" for the settings of `prepare_backend`, or "default".
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    # The new process reads this variable when it imports this file.
    os.environ["BENCH_ALLOCATOR"] = allocator
    process = spawn.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
    process.start()
    theirs.close()

    def turn() -> float:
        ours.send(True)
        return ours.recv()

    try:
        yield turn
    finally:
        ours.send(False)
        process.join()


def take_turns(
    rounds: int, sides: dict[str, tuple[Callable, Sequence, str]], warm_up: int = 2
) -> dict[str, float]:
    """Runs the sides in turn and returns the median seconds of a turn of each side.

    Args:
      rounds: rounds that count.
      sides: for each side the arguments of `_side`.
      warm_up: rounds before them that do not count.
    """
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(_side(*side)) for name, side in sides.items()}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(warm_up + rounds):
            for name, turn in turns.items():
                seconds = turn()
                if number >= warm_up:
                    times[name].append(seconds)
    return {name: statistics.median(each) for name, each in times.items()}


def compare(name: str, tokens: int, rounds: int, ours, theirs) -> dict[str, float]:
    """Returns tokens per second of each side, and our speed as a multiple of each of theirs."""
    seconds = take_turns(
        rounds,
        {OURS: (*ours, "kept"), THEIRS: (*theirs, "default"), THEIRS_KEPT: (*theirs, "kept")},
    )
    found: dict[str, float] = {
        f"{name}_{side}_tokens_per_s": round(tokens / s) for side, s in seconds.items()
    }
    for side in (THEIRS, THEIRS_KEPT):
        found[f"{name}_ratio_to_{side}"] = round(seconds[side] / seconds[OURS], 2)
    return found


def ragged_documents() -> list[np.ndarray]:
    """Returns token ids of the tiny world's documents, about `ROWS * LENGTH` tokens in all."""
    texts = corpus.documents(2000, seed=0)
    tokenizer = train_bpe(texts, VOCAB, eos_token="<eos>")
    documents, total = [], 0
    for ids in tokenizer.encode_batch(texts):
        if total + len(ids) > 0.95 * ROWS * LENGTH:
            return documents
        documents.append(np.array(ids, np.int32))
        total += len(ids)
    raise AssertionError("the corpus is too small; ask for more documents")


def main() -> None:
    """Prints the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    rng = np.random.default_rng(0)
    documents = {
        "dense": [rng.integers(0, VOCAB, LENGTH).astype(np.int32) for _ in range(ROWS)],
        "documents": ragged_documents(),
    }
    prompts = rng.integers(0, VOCAB, (BATCH, PROMPT))
    products = take_turns(5, {OURS: (our_product, (), "kept"), THEIRS: (their_product, (), "kept")})
    peak = 2 * 2048**3 / min(products.values())
    report: dict = {"peak_gflops": round(peak / 1e9, 1), "cores": os.cpu_count()}
    print(json.dumps(report), flush=True)
    for width in (128, 512):
        rounds = 5 if quick else 15
        with tempfile.TemporaryDirectory() as scratch:
            directory = f"{scratch}/hf"
            export_model(directory, model_config(width), our_params(width))
            results = {}
            for name, each in documents.items():
                tokens = sum(len(d) for d in each)
                results |= compare(
                    name, tokens, rounds, (our_training, (width, each)),
                    (their_training, (directory, each)),
                )  # fmt: skip
            flops = 3 * model_config(width).flops_per_token(LENGTH / 2)
            for side in (OURS, THEIRS, THEIRS_KEPT):
                share = results[f"dense_{side}_tokens_per_s"] * flops / peak
                results[f"dense_{side}_share_of_peak"] = round(share, 3)
            results |= compare(
                "generation", BATCH * NEW_TOKENS, 3 if quick else 5,
                (our_generation, (width, prompts)), (their_generation, (directory, prompts)),
            )  # fmt: skip
        report[f"d{width}"] = results
        print(f"d{width}", json.dumps(results, indent=2), flush=True)


if __name__ == "__main__":
    main()
