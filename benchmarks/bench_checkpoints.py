"""Measures what the checksums of checkpoints cost at a realistic size.

    python -m benchmarks.bench_checkpoints --gigabytes=1.5

The benchmark saves a state of random arrays and prints the seconds of five things: the save until
training goes on; the save until it is complete; the checksums, which are part of the latter and run
in the background; the comparison of checksums before a restore; and the restore with that
comparison.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from models.manifest import check_manifest, write_manifest
from train.checkpoint import Checkpointer
from train.state import TrainState

ARRAYS = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    size = int(parser.parse_args().gigabytes * 1e9 / 4 / ARRAYS)
    folder = parser.parse_args().folder
    rng = np.random.default_rng(0)
    params = {
        f"layer_{i}": jax.device_put(rng.standard_normal(size, np.float32)) for i in range(ARRAYS)
    }
    state = TrainState(jax.device_put(np.int32(1)), params, {})
    with tempfile.TemporaryDirectory(dir=folder) as directory, Checkpointer(directory) as saved:
        seconds = {}
        start = time.perf_counter()
        saved.save(state, {}, {})
        seconds["save, until training goes on"] = time.perf_counter() - start
        saved.wait()
        seconds["save, until complete"] = time.perf_counter() - start
        place = Path(directory) / "1"
        seconds["of it, checksums"] = _seconds(lambda: write_manifest(place))
        seconds["compare checksums"] = _seconds(lambda: check_manifest(place))
        seconds["restore, checksums compared"] = _seconds(lambda: saved.restore(state))
        stored = sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
    print(f"{stored / 1e9:.2f} GB on disk, {os.cpu_count()} cores")
    for what, duration in seconds.items():
        print(f"{duration:7.2f} s  {what}")


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
