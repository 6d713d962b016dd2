"""The machine that a run was on, for its report: what a seed gives depends on some of it."""

import os
import platform
from pathlib import Path
from typing import Any

import jax


def describe() -> dict[str, Any]:
    """What the figures and weights of a run depend on, besides its config.

    Returns:
      `processor`: the CPU's name. `cores`: that this process may use. `threads`: that XLA divides
      sums among on a CPU, which changes their last bits: the same number on another machine of
      this kind (the variable NPROC sets it) gives the same weights. `devices`:
      how many of which kind. `jax`: its version.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Not Linux.
        cores = os.cpu_count() or 1
    threads = os.environ.get("NPROC", "")
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": int(threads) if threads.isdecimal() else cores,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # Not Linux.
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
