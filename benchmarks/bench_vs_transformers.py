"""SFT step and generation against PyTorch + transformers: same weights, same work, one run, one CPU.

    make bench          (or: python -m benchmarks.bench_vs_transformers [--quick])

Both sides take turns in one process, with the allocator on huge pages for both, so that a machine
whose speed drifts drifts for both; medians and ratios are what to quote. Each comparison has a
process of its own: what a training leaves behind (threads, memory) slows the next one's sampling.
SFT is measured twice: on rows without padding (the same shapes to the letter), and
on documents of the tiny world's corpus, which transformers pads to the longest of a batch and this
project packs; there only real tokens count. The share of peak is that of the largest matrix
product's speed, measured before it in the same process.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable

from launch.runtime import prepare_backend, restart_on_huge_pages

if __name__ == "__main__":
    restart_on_huge_pages()
prepare_backend()

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.packing import pack, place
from models.sampler import Sampler
from models.sharding import make_mesh
from reasoning.tiny_world import corpus
from train import sft
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

VOCAB, ROWS, LENGTH = 512, 16, 128
PROMPT, NEW_TOKENS, BATCH = 24, 96, 64


def model_config(width: int) -> ModelConfig:
    return ModelConfig(
        family="qwen3", vocab_size=VOCAB, embed_dim=width, num_layers=4, num_heads=width // 32,
        num_kv_heads=max(1, width // 128), head_dim=32, mlp_dim=3 * width, qk_norm=True,
        tie_embeddings=True, max_length=512, scan_unroll=4,
    )  # fmt: skip


def alternate(rounds: int, **sides: Callable[[], None]) -> dict[str, float]:
    """Median seconds of each side, run in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def matmul_peak() -> float:
    """FLOP/s of a float32 matrix product of 2048, the better of both libraries."""
    a = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    ours, theirs = jnp.asarray(a), torch.from_numpy(a)
    product = jax.jit(jnp.matmul)
    seconds = alternate(
        5, ours=lambda: product(ours, ours).block_until_ready(), theirs=lambda: theirs @ theirs
    )
    return 2 * 2048**3 / min(seconds.values())


def ragged_documents() -> list[np.ndarray]:
    """Token ids with the lengths of the tiny world's documents, about `ROWS * LENGTH` in all."""
    from models.tokenizer import train_bpe

    texts = corpus.documents(2000, seed=0)
    tokenizer = train_bpe(texts, VOCAB, eos_token="<eos>")
    documents, total = [], 0
    for ids in tokenizer.encode_batch(texts):
        if total + len(ids) > 0.95 * ROWS * LENGTH:
            return documents
        documents.append(np.array(ids, np.int32))
        total += len(ids)
    raise AssertionError("the corpus is too small")


def bench_training(width: int, rounds: int) -> dict[str, float]:
    """Tokens per second of one AdamW step, forward, backward and update."""
    peak = matmul_peak()
    config = model_config(width)
    model, mesh = LanguageModel(config), make_mesh()
    params = jax.jit(model.init)(jax.random.key(0))
    settings = dict(name="adamw", learning_rate=1e-4, weight_decay=0.1, clip_norm=1.0)
    optimizer = make_optimizer(settings, model.abstract_params, 10_000)
    with tempfile.TemporaryDirectory() as directory:
        export_model(f"{directory}/hf", config, params)
        torch_model = AutoModelForCausalLM.from_pretrained(f"{directory}/hf", dtype=torch.float32)
    torch_model.train()
    torch_optimizer = torch.optim.AdamW(torch_model.parameters(), lr=1e-4, fused=True)
    state = state_from_params(model, params, optimizer, mesh)
    step = make_train_step(sft.make_loss(model), optimizer, mesh)

    rng = np.random.default_rng(0)
    dense = [rng.integers(0, VOCAB, LENGTH).astype(np.int32) for _ in range(ROWS)]
    results = {"peak_gflops": peak / 1e9}
    for name, documents in (("dense", dense), ("ragged", ragged_documents())):
        examples = [{"tokens": d, "loss_weights": np.ones(len(d), np.float32)} for d in documents]
        placement = place([len(d) for d in documents], LENGTH)
        batch = step.put(pack(examples, placement, LENGTH, ROWS))
        longest = max(len(d) for d in documents)
        ids = torch.zeros(len(documents), longest, dtype=torch.long)
        mask = torch.zeros(len(documents), longest, dtype=torch.long)
        for row, document in enumerate(documents):
            ids[row, : len(document)] = torch.from_numpy(document)
            mask[row, : len(document)] = 1
        labels = ids.masked_fill(mask == 0, -100)
        attention_mask = None if mask.all() else mask

        def ours():
            nonlocal state
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics["loss"])

        def theirs():
            loss = torch_model(input_ids=ids, attention_mask=attention_mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(torch_model.parameters(), 1.0)
            torch_optimizer.step()
            torch_optimizer.zero_grad(set_to_none=True)

        seconds = alternate(rounds, ours=ours, theirs=theirs)
        tokens = sum(len(d) for d in documents)
        results |= {
            f"{name}_tokens_per_s": tokens / seconds["ours"],
            f"{name}_transformers_tokens_per_s": tokens / seconds["theirs"],
            f"{name}_ratio": seconds["theirs"] / seconds["ours"],
        }
        if name == "dense":
            flops = 3 * tokens * config.flops_per_token(LENGTH / 2)
            results["share_of_peak"] = flops / seconds["ours"] / peak
            results["transformers_share_of_peak"] = flops / seconds["theirs"] / peak
    return results


def bench_generation(width: int, rounds: int) -> dict[str, float]:
    """Tokens per second at batch 64, sampled at temperature 1, nobody stopping early."""
    config = model_config(width)
    model = LanguageModel(config)
    params = jax.jit(model.init)(jax.random.key(0))
    with tempfile.TemporaryDirectory() as directory:
        export_model(f"{directory}/hf", config, params)
        torch_model = AutoModelForCausalLM.from_pretrained(f"{directory}/hf", dtype=torch.float32)
    torch_model.eval()
    prompts = np.random.default_rng(1).integers(0, VOCAB, (BATCH, PROMPT))
    ids = torch.from_numpy(prompts)
    sampler = Sampler(model, slots=BATCH, group=1, max_new_tokens=NEW_TOKENS, stop_ids=[])
    rows, key = prompts.tolist(), jax.random.key(0)

    def theirs():
        with torch.inference_mode():
            out = torch_model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
                min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, pad_token_id=0,
            )  # fmt: skip
        assert out.shape[1] == PROMPT + NEW_TOKENS

    def ours():
        assert sampler(params, rows, key).lengths.sum() == BATCH * NEW_TOKENS

    seconds = alternate(rounds, ours=ours, theirs=theirs)
    tokens = BATCH * NEW_TOKENS
    return {
        "tokens_per_s": tokens / seconds["ours"],
        "transformers_tokens_per_s": tokens / seconds["theirs"],
        "ratio": seconds["theirs"] / seconds["ours"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    report: dict = {"threads": torch.get_num_threads()}
    spawn = multiprocessing.get_context("spawn")
    for width in (128, 512):
        rounds = (3 if quick else 9) if width == 128 else (2 if quick else 5)
        for name, bench, count in (
            (f"sft_d{width}", bench_training, rounds),
            (f"generate_d{width}", bench_generation, 2 if quick else 5),
        ):
            with spawn.Pool(1) as pool:
                results = pool.apply(bench, (width, count))
            report[name] = {figure: round(value, 3) for figure, value in results.items()}
            print(name, json.dumps(report[name]), flush=True)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
