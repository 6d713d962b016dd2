"""Compares search by steps with plain sampling: same weights, same rows, same number of tokens.

    python -m benchmarks.bench_paths [--quick]

The benchmark measures wall time per generated token, including the host's work. The two sides take
turns in one process. A search extends 16 paths of each prompt by a step, draws survivors at random
and forks them, as beam search does, until the paths are full; a `verified` search also scores every
step with a model of the same size. `even` steps have 12 tokens. `ragged` steps end at a delimiter
after 12 +- 3.5 tokens, and all rows of a step wait for the longest. A round gives the ratio of a
search to plain sampling of as many rows; the report has the median and the range over all rounds.

A second part measures best-of-64 for a prompt of 256 tokens that is read once or 64 times.
"""
# ruff: noqa: E402  (The backend must be prepared before JAX is imported.)

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from launch.parts.runtime import prepare_backend

prepare_backend()

import jax
import numpy as np

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.paths.path_sampler import LENGTH, ROOT, PathSampler
from models.paths.path_scorer import PathScorer
from models.scalar_head import ScalarModel
from models.tokens.stopping import TokenAutomaton

CONFIG = ModelConfig(
    family="qwen3", vocab_size=768, embed_dim=128, num_layers=4, num_heads=4, num_kv_heads=1,
    head_dim=32, mlp_dim=384, qk_norm=True, tie_embeddings=True, max_length=512, scan_unroll=4,
)  # fmt: skip
WIDTH, NEW_TOKENS, STEP, PROMPT = 16, 96, 12, 30
SHARED, SAMPLES = 256, 64


def take_turns(rounds: int, **sides: Callable[[], int]) -> dict[str, list[float]]:
    """Runs the sides in turn and returns their seconds per token, one entry for each round.

    Args:
      rounds: number of rounds, not counting one for warm-up.
      sides: functions that do the work and return how many tokens they generated.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            tokens = run()
            if number:
                times[name].append((time.perf_counter() - start) / tokens)
    return times


def ratio(times: list[float], base: list[float]) -> dict[str, float]:
    """Returns median, least and largest of the rounds' ratios of `times` to `base`."""
    ratios = [a / b for a, b in zip(times, base, strict=True)]
    found = {"median": statistics.median(ratios), "least": min(ratios), "largest": max(ratios)}
    return {name: round(value, 3) for name, value in found.items()}


def ragged_steps() -> TokenAutomaton:
    """Returns a delimiter that ends a step at the sixth token from the vocabulary's upper half."""
    upper = np.arange(CONFIG.vocab_size) >= CONFIG.vocab_size // 2
    return TokenAutomaton(np.minimum(np.arange(7)[:, None] + upper, 6).astype(np.int16))


class Search:
    """A beam search that draws its survivors at random.

    Attributes:
      sampled: tokens that all calls sampled.
      row_steps: decode steps of all calls, counted for each row; `sampled / row_steps` is the
        occupancy.
    """

    def __init__(
        self,
        prompts: list[list[int]],
        params: Any,
        delimiter: TokenAutomaton | None = None,
        verifier: Any = None,
    ):
        shape = dict(prompts=len(prompts), capacity=WIDTH, width=WIDTH, max_new_tokens=NEW_TOKENS)
        self.prompts, self.params, self.verifier = prompts, params, verifier
        shape["step_tokens"] = STEP if delimiter is None else 2 * STEP
        self.sampler = PathSampler(LanguageModel(CONFIG), **shape, stop_ids=[], delimiter=delimiter)
        self.scorer = PathScorer(ScalarModel(CONFIG), **shape)
        self.calls = self.sampled = self.row_steps = 0

    def __call__(self) -> int:
        """Runs the search once and returns the number of tokens that it sampled."""
        self.calls += 1
        rng, key = np.random.default_rng(self.calls), jax.random.key(self.calls)
        prompts = self.prompts
        P, number, sampled, row_steps = len(prompts), 0, 0, 0
        state = self.sampler.start(self.params, prompts)
        weights = self.sampler.prepare(self.params)
        pool = self.scorer.start(self.verifier, prompts) if self.verifier else None
        everywhere = np.tile(np.arange(WIDTH), (P, 1))
        parents, into = np.full((P, WIDTH), ROOT), everywhere
        while (into >= 0).any():
            state, steps = self.sampler.extend(
                weights, state, parents, into, key, number=number, donate=True
            )
            number += 1
            if pool is not None:
                pool, _ = self.scorer.extend(
                    self.verifier, pool, parents, into, steps.tokens, steps.lengths, donate=True
                )
            sampled += int(steps.lengths.sum())
            row_steps += int(steps.lengths.max()) * int((into >= 0).sum())
            alive = (into >= 0) & (steps.finish != LENGTH)
            parents = np.zeros_like(everywhere)
            into = np.where(alive.any(1, keepdims=True), everywhere, -1)
            for p in np.flatnonzero(alive.any(1)):
                parents[p] = rng.choice(np.flatnonzero(alive[p]), WIDTH)
        self.sampled, self.row_steps = self.sampled + sampled, self.row_steps + row_steps
        return sampled


def bench_search(num_prompts: int, rounds: int) -> dict:
    """Returns the ratios of searches to plain sampling, for `num_prompts` prompts at a time."""
    params = jax.jit(LanguageModel(CONFIG).init)(jax.random.key(0))
    verifier = jax.jit(ScalarModel(CONFIG).init)(jax.random.key(1))
    rng = np.random.default_rng(1)
    prompts = rng.integers(0, CONFIG.vocab_size, (num_prompts, PROMPT)).tolist()
    plain = Sampler(
        LanguageModel(CONFIG),
        slots=num_prompts,
        group=WIDTH,
        max_new_tokens=NEW_TOKENS,
        stop_ids=[],
    )
    searches = {
        "even": Search(prompts, params),
        "even_verified": Search(prompts, params, verifier=verifier),
        "ragged": Search(prompts, params, ragged_steps()),
        "ragged_verified": Search(prompts, params, ragged_steps(), verifier),
    }
    times = take_turns(
        rounds,
        plain=lambda: int(plain(params, prompts, jax.random.key(0)).lengths.sum()),
        **searches,
    )
    found: dict = {"plain_us_per_token": round(1e6 * statistics.median(times["plain"]), 1)}
    for name, search in searches.items():
        found[name] = ratio(times[name], times["plain"])
        found[name]["occupancy"] = round(search.sampled / search.row_steps, 3)
    return found


def bench_shared_prompt(rounds: int) -> dict:
    """Measures reading a prompt once and 64 times, and best-of-64 with both."""
    model = LanguageModel(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0))
    prompt = np.random.default_rng(2).integers(0, CONFIG.vocab_size, SHARED).tolist()

    def sampler(prompts, width):
        return PathSampler(
            model, prompts=prompts, capacity=width, width=width, max_new_tokens=NEW_TOKENS,
            step_tokens=NEW_TOKENS, stop_ids=[], delimiter=None,
        )  # fmt: skip

    shared, apart = sampler(1, SAMPLES), sampler(SAMPLES, 1)

    def read(sampler):
        state = sampler.start(params, [prompt] * sampler.prompts)
        jax.block_until_ready((state.pool.prefix, state.pool.paths))
        return state

    def best_of(sampler):
        rows = (sampler.prompts, sampler.width)
        everywhere = np.tile(np.arange(sampler.width), (sampler.prompts, 1))
        key = jax.random.key(0)
        sampler.extend(params, read(sampler), np.full(rows, ROOT), everywhere, key, donate=True)
        return 1

    def start(sampler):
        read(sampler)
        return 1

    times = take_turns(
        rounds,
        read_once=lambda: start(shared),
        read_64_times=lambda: start(apart),
        best_of_64_shared=lambda: best_of(shared),
        best_of_64_apart=lambda: best_of(apart),
    )
    seconds = {name: statistics.median(each) for name, each in times.items()}
    return {name: round(1e3 * value, 2) for name, value in seconds.items()} | {
        "unit": "ms",
        "tokens_read_shared": SHARED - 1,
        "tokens_read_apart": SAMPLES * (SHARED - 1),
    }


def main() -> None:
    """Prints the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 4 if parser.parse_args().quick else 12
    report = {}
    for prompts in (1, 8):
        report[f"search_of_{prompts}"] = bench_search(prompts, rounds)
        print(json.dumps(report[f"search_of_{prompts}"]), flush=True)
    report["shared_prompt"] = bench_shared_prompt(rounds)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
