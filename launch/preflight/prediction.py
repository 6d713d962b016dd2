"""Predicts a whole iteration from the figures of its programs, and says what to change.

All times are lower bounds: the slowest of computing, memory and links decides, as if the three
overlapped in full and each ran at its published speed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from launch.parts import flops
from launch.preflight.machines import GIB, Machine
from launch.preflight.programs import Job
from launch.schema.rl import RlConfig
from models.sharding import batch_shards, decoding_mesh

# A resource that takes less than this share of the time of the slowest one is not worth a word.
NOTABLE = 0.5


def predict(
    job: Job, rows: list[dict[str, Any]], machine: Machine | None, response_tokens: int
) -> dict[str, Any]:
    """Returns the prediction for an iteration, JSON-able.

    Args:
      job: the job.
      rows: what `compiled.measure` found for each of its programs.
      machine: the device; None for a CPU, for which no time is predicted.
      response_tokens: expected length of a response.
    """
    peak = max(row["peak_bytes"] for row in rows)
    fits = None if machine is None else peak <= machine.hbm_gib * GIB
    found: dict[str, Any] = {"peak_bytes": peak, "fits": fits}
    if machine is None:
        return found
    found["largest"] = dict(_largest(job, rows, machine))
    if all(row["cost"] for row in rows):
        found |= _times(job, rows, machine, response_tokens)
    found["advice"] = list(_advice(job, rows, machine, found))
    return found


def _times(
    job: Job, rows: list[dict[str, Any]], machine: Machine, response_tokens: int
) -> dict[str, Any]:
    config, devices, model = job.config, job.mesh.size, job.model.config
    seconds = {row["name"]: row["runs"] * max(row["seconds"].values()) for row in rows}
    total = sum(seconds.values())
    train = next(row for row in rows if row["name"] == "train step")
    update = flops.UPDATE * flops.forward(model, [config.row_length] * config.rows)
    useful = update * train["runs"]
    tokens = config.rows * config.row_length * train["runs"]
    found: dict[str, Any] = {
        "seconds_by_program": seconds,
        "seconds": total,
        "flops_of_update": update,
        "mfu_of_train_step": update / devices / machine.flops / max(train["seconds"].values()),
        "trained_tokens_per_second": tokens / total,
        "updates_per_iteration": train["runs"],
    }
    if isinstance(config, RlConfig):
        prompts, responses = config.prompts, config.prompts * config.group
        passes = sum(row["runs"] for row in rows if row["name"] == "log-probabilities")
        useful += passes * update / flops.UPDATE
        full = np.full((prompts, config.group), response_tokens)
        useful += flops.sampling(model, [config.max_prompt_tokens] * prompts, full)
        found["sampled_tokens_per_second"] = responses * response_tokens / total
        found["response_tokens"] = response_tokens
    found["mfu"] = useful / devices / machine.flops / total
    steps = getattr(config, "steps", None)
    found["steps"] = steps
    counted = 1000 if steps is None else steps
    iterations = counted / train["runs"]
    found["chip_hours"] = iterations * total * devices / 3600
    return found


def _largest(job: Job, rows: list[dict[str, Any]], machine: Machine) -> Iterator[tuple[str, int]]:
    """Yields the largest sizes that fit, if what a row needs stays the same."""
    config = job.config
    room = machine.hbm_gib * GIB
    by_name = {row["name"]: row for row in rows}
    shards = batch_shards(job.mesh)
    now = config.rows // config.microbatches // shards
    train = by_name["train step"]
    activations = max(0, train["temporary_bytes"] - train["temporaries"]["gradients"])
    if activations:
        fixed = train["peak_bytes"] - activations
        most = int((room - fixed) // (activations / now))
        yield "rows of a microbatch", max(0, most) * shards
    if isinstance(config, RlConfig) and "sampler" in by_name:
        sampler = by_name["sampler"]
        cache = sampler["temporaries"]["key-value cache"]
        # What is not the cache does not grow with the rows, or hardly.
        fixed = sampler["peak_bytes"] - sampler["temporary_bytes"]
        per_row = max(cache, sampler["temporary_bytes"]) / config.sampler_rows
        unit = config.group * batch_shards(decoding_mesh(job.mesh))
        yield "sampler_rows", max(0, int((room - fixed) / per_row) // unit * unit)


def _advice(
    job: Job, rows: list[dict[str, Any]], machine: Machine, found: Mapping[str, Any]
) -> Iterator[str]:
    config = job.config
    for row in rows:
        if row["peak_bytes"] > machine.hbm_gib * GIB:
            yield _how_to_fit(job, row, found["largest"])
    if unread := [row["name"] for row in rows if "unread" in row]:
        yield (
            f"this JAX cannot read what this libtpu has compiled ({', '.join(unread)}), so no time"
            " is predicted: pip install 'jax[tpu]' brings the version that it can read"
        )
    if "seconds" not in found:
        return
    shards = batch_shards(job.mesh)
    now, most = config.rows // config.microbatches, found["largest"].get("rows of a microbatch", 0)
    fewer = next(
        (n for n in range(1, config.microbatches)
         if config.rows % (n * shards) == 0 and config.rows // n <= most),
        None,
    )  # fmt: skip
    train = rows[0]
    links, compute = train["seconds"]["links"], train["seconds"]["compute"]
    if fewer is not None and links > NOTABLE * compute:
        yield (
            f"the train step sends weights and gradients once for each microbatch: links take"
            f" {links / compute:.0%} of the time of computing; microbatches={fewer} fits, too,"
            f" with {config.rows // fewer} rows instead of {now}"
        )
    if train["bound_by"] == "links":
        yield (
            "the links bound the train step: a smaller mesh axis tensor sends fewer activations, if"
            " the weights then fit"
        )
    if train["bound_by"] == "memory":
        yield "the memory's speed bounds the train step: see which instruction moves most"
    sampler = next((row for row in rows if row["name"] == "sampler"), None)
    if sampler is not None and isinstance(config, RlConfig):
        share = found["seconds_by_program"]["sampler"] / found["seconds"]
        most = found["largest"]["sampler_rows"]
        if sampler["bound_by"] == "memory" and most > config.sampler_rows:
            yield (
                f"sampling takes {share:.0%} of the iteration, bound by the memory's speed: a"
                f" larger sampler_rows reads the weights for more tokens at a time, up to {most:,}"
                f" (now {config.sampler_rows})"
            )
        elif sampler["bound_by"] == "links":
            yield (
                f"sampling takes {share:.0%} of the iteration, bound by the links: a larger"
                " sampler_rows sends as many messages for more tokens"
            )


def _how_to_fit(job: Job, row: Mapping[str, Any], largest: Mapping[str, int]) -> str:
    """Says what to change so that a program fits, by the largest of what it needs."""
    known = sum(row["temporaries"].values())
    kinds = {
        **row["arguments"], **row["held"], **row["temporaries"],
        "activations": max(0, row["temporary_bytes"] - known),
    }  # fmt: skip
    kind = max(kinds, key=lambda name: kinds[name])
    if kind == "activations":
        rows = largest.get("rows of a microbatch", 0)
        if job.config.remat != "full":
            change = "set remat=full"
        elif rows:
            change = f"raise microbatches, so that one has at most {rows} rows"
        else:
            change = "shorten row_length, or raise the mesh axis tensor"
    elif kind == "key-value cache":
        change = f"lower sampler_rows to at most {largest['sampler_rows']}"
    elif kind == "weights for sampling":
        change = "raise the mesh axis tensor, which alone splits them"
    elif kind == "optimizer state":
        change = "take more devices, optimizer.mu_dtype=bfloat16 or optimizer.name=adafactor"
    else:
        change = "take more devices, or train adapters by lora.rank"
    return (
        f"the {row['name']} does not fit: the most of its {row['peak_bytes'] / GIB:.1f} GiB are"
        f" {kind} ({kinds[kind] / GIB:.1f} GiB); {change}"
    )
